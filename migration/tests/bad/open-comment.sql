-- expect: refused parse-error 2:11 in v1.2.0.sql
SELECT 1; /* /* */
