-- found by rehearsal: 42P01: the table is not there
-- file: v1.2.0.sql
ALTER TABLE no_such_table ADD COLUMN title text;
