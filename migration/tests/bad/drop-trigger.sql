-- expect: breaking ban-drop-trigger 2:1 in v1.2.0.sql
DROP TRIGGER stamp ON features;
