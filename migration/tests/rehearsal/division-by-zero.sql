-- found by rehearsal: 22012: a row divides by zero
-- file: v1.2.0.sql
UPDATE features SET share = 1 / area WHERE share IS NULL;
