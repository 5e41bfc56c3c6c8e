-- expect: dangerous require-concurrent-index-deletion 2:1 in v1.2.0.sql
DROP INDEX by_name;
