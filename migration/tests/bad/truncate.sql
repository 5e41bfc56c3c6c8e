-- expect: breaking truncate 2:1 in v1.2.0.sql
TRUNCATE features;
