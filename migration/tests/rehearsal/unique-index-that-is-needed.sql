-- found by rehearsal: PM0340 (an upsert of the version that serves names its columns)
-- file: v1.2.0.sql
DROP INDEX CONCURRENTLY by_name;
