-- found by rehearsal: a verify statement returns false
-- file: v1.2.0.verify.sql
SELECT count(*) > 0 FROM features;
