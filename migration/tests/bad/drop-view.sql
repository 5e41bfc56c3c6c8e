-- expect: breaking ban-drop-view 2:1 in v1.2.0.sql
DROP VIEW active_features;
