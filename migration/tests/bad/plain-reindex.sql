-- expect: dangerous require-concurrent-reindex 2:1 in v1.2.0.sql
REINDEX TABLE features;
