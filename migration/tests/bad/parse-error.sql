-- expect: refused parse-error 3:22 in v1.2.0.sql
ALTER TABLE features ADD COLUMN title text;
ALTER TABLE features ADDD COLUMN title text;
