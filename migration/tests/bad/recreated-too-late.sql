-- expect: breaking ban-drop-view 2:1 in v1.2.0.sql
DROP VIEW active_features;
CREATE INDEX CONCURRENTLY i ON features (name);
CREATE VIEW active_features AS SELECT 1;
