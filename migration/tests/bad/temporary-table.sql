-- expect: refused session-state 2:1 in v1.2.0.sql
CREATE TEMP TABLE t AS SELECT 1;
