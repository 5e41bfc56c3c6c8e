DROP VIEW IF EXISTS active_features;
CREATE VIEW active_features AS SELECT id, name, title FROM features WHERE state = 'active';
