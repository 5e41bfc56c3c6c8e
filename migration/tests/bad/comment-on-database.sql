-- expect: refused beyond-database 2:1 in v1.2.0.sql
COMMENT ON DATABASE site IS 'the map';
