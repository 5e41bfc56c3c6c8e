-- expect: refused session-setting 2:1 in v1.2.0.sql
SET work_mem = '1GB';
CREATE TABLE t (id int);
