-- expect: breaking ban-drop-column 4:28 in v1.2.0.sql
CREATE SCHEMA archive;
CREATE TABLE archive.features (id int);
ALTER TABLE features       DROP COLUMN name;
