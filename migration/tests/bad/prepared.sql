-- expect: refused session-state 2:1 in v1.2.0.sql
PREPARE p AS SELECT 1;
