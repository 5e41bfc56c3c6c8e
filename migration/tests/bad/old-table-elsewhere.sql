-- expect: breaking ban-drop-table 4:1 in v1.2.0.sql
CREATE SCHEMA archive;
CREATE TABLE archive.features AS SELECT * FROM features;
DROP TABLE features;
