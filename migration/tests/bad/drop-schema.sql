-- expect: breaking ban-drop-schema 2:1 in v1.2.0.sql
DROP SCHEMA gis CASCADE;
