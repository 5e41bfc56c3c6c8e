-- expect: refused session-setting 2:1 in v1.2.0.sql
SET search_path = gis;
CREATE TABLE t (id int);
