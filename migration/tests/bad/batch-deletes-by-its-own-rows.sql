-- expect: refused batch-reads-itself 3:1 in v1.2.0.contract.sql
-- pointsman: batch=id:500
DELETE FROM features WHERE (SELECT count(*) FROM features AS other) > 1000;
