-- expect: dangerous constraint-with-column 2:43 in v1.2.0.sql
ALTER TABLE features ADD COLUMN code text UNIQUE;
