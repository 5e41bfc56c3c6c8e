-- expect: breaking adding-required-field 2:22 in v1.2.0.sql
ALTER TABLE features ADD COLUMN owner int NOT NULL;
