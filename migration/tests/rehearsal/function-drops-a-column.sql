-- found by rehearsal: PM0340 (a column is gone, and no text tells)
-- file: v1.2.0.sql
SELECT tidy();
