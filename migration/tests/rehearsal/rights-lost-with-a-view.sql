-- found by rehearsal: PM0340 (the view is there again, and nobody may read it)
-- file: v1.2.0.sql
DROP VIEW names;
CREATE VIEW names AS SELECT name FROM features;
