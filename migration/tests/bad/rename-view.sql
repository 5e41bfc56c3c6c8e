-- expect: breaking renaming-object 2:1 in v1.2.0.sql
ALTER VIEW active_features RENAME TO current_features;
