-- expect: dangerous role 2:1 in v1.2.0.sql
CREATE ROLE reader;
