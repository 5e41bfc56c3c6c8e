-- expect: dangerous table-rewrite 2:1 in v1.2.0.sql
VACUUM FULL features;
