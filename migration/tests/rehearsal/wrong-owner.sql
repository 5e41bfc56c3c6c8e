-- found by rehearsal: 42501: the agent does not own the table
-- file: v1.2.0.sql
ALTER TABLE features ADD COLUMN title text;
