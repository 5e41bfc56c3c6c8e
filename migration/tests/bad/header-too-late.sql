-- expect: refused header 3:1 in v1.2.0.sql
SELECT 1;
-- pointsman: no-transaction
