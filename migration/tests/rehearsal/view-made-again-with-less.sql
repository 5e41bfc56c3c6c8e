-- found by rehearsal: the running version's query no longer plans (42703)
-- file: v1.2.0.sql
DROP VIEW names;
CREATE VIEW names AS SELECT id FROM features;
