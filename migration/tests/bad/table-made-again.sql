-- expect: breaking ban-drop-table 2:1 in v1.2.0.sql
DROP TABLE features;
CREATE TABLE features (id int PRIMARY KEY, name text);
