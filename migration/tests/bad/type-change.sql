-- expect: breaking changing-column-type 2:22 in v1.2.0.sql
ALTER TABLE features ALTER COLUMN id TYPE bigint;
