-- expect: refused batch-reads-itself 3:1 in v1.2.0.sql
-- pointsman: batch=id:500
UPDATE features SET rank = rank + (SELECT count(*) FROM features AS other WHERE other.rank = 0);
