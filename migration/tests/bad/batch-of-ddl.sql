-- expect: refused batch 3:1 in v1.2.0.sql
-- pointsman: batch=id:5000
ALTER TABLE features ADD COLUMN title text;
