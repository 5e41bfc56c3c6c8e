-- expect: breaking renaming-column 2:22 in v1.2.0.sql
ALTER TABLE features RENAME COLUMN name TO title;
