-- found by rehearsal: 42701: the column is there already
-- file: v1.2.0.sql
ALTER TABLE features ADD COLUMN name text;
