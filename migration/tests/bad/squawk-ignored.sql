-- expect: breaking ban-drop-column 3:22 in v1.2.0.sql
-- squawk-ignore ban-drop-column
ALTER TABLE features DROP COLUMN name;
