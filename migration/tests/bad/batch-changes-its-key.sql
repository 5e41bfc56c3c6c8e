-- expect: refused batch-key 4:1 in v1.2.0.sql
-- pointsman: batch=id:1000

UPDATE features SET name = upper(name), id = id + 1000000;
