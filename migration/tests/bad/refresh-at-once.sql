-- expect: dangerous refresh-at-once 2:1 in v1.2.0.sql
REFRESH MATERIALIZED VIEW totals;
