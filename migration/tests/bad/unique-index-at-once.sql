-- expect: breaking unique-index-at-once 2:1 in v1.2.0.sql
CREATE UNIQUE INDEX one_name ON features (name);
