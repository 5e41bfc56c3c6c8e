-- expect: dangerous require-concurrent-index-creation 2:1 in v1.2.0.sql
CREATE INDEX by_name ON features (name);
