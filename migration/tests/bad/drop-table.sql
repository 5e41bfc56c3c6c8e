-- expect: breaking ban-drop-table 2:1 in v1.2.0.sql
DROP TABLE IF EXISTS old_features;
