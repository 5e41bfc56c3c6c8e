-- expect: refused header 2:1 in v1.2.0.sql
-- pointsman: no-transactions
SELECT 1;
