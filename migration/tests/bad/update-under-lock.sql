-- expect: dangerous data-under-lock 3:1 in v1.2.0.sql
ALTER TABLE features ADD COLUMN title text;
UPDATE features SET title = name WHERE title IS NULL;
