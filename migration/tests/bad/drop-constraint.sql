-- expect: dangerous ban-drop-constraint 2:22 in v1.2.0.sql
ALTER TABLE features DROP CONSTRAINT one_name;
