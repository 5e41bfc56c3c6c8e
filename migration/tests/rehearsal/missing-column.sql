-- found by rehearsal: 42703: the column is not there
-- file: v1.2.0.sql
CREATE INDEX CONCURRENTLY by_nothing ON features (nothing);
