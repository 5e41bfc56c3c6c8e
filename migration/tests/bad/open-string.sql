-- expect: refused parse-error 2:8 in v1.2.0.sql
SELECT 'open;
