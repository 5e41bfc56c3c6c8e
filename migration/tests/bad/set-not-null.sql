-- expect: breaking adding-not-nullable-field 2:22 in v1.2.0.sql
ALTER TABLE features ALTER COLUMN owner SET NOT NULL;
