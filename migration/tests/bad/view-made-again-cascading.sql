-- expect: breaking ban-drop-view 2:1 in v1.2.0.sql
DROP VIEW active_features CASCADE;
CREATE VIEW active_features AS SELECT id, name FROM features;
