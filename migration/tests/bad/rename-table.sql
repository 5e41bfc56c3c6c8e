-- expect: breaking renaming-table 2:22 in v1.2.0.sql
ALTER TABLE features RENAME TO layers;
