-- expect: refused own-setting 2:1 in v1.2.0.sql
SET LOCAL lock_timeout = '1h';
