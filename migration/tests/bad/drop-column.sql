-- expect: breaking ban-drop-column 4:3 in v1.2.0.sql
ALTER TABLE features
  ADD COLUMN title text,
  DROP COLUMN name;
