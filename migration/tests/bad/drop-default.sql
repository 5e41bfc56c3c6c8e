-- expect: breaking ban-drop-default 2:22 in v1.2.0.sql
ALTER TABLE features ALTER COLUMN state DROP DEFAULT;
