-- expect: refused index-without-name 2:1 in v1.2.0.sql
CREATE INDEX CONCURRENTLY ON features (name);
