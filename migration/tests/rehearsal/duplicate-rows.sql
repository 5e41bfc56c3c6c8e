-- found by rehearsal: 23505: two rows have the same name; the index stays behind, INVALID
-- file: v1.2.0.sql
CREATE UNIQUE INDEX CONCURRENTLY one_name ON features (name);
