-- expect: breaking ban-drop-extension 2:1 in v1.2.0.sql
DROP EXTENSION hstore;
