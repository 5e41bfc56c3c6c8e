-- expect: refused beyond-database 2:1 in v1.2.0.sql
DROP DATABASE p2d2;
