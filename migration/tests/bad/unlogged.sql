-- expect: dangerous table-rewrite 2:22 in v1.2.0.sql
ALTER TABLE features SET UNLOGGED;
