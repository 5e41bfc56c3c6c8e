-- expect: breaking ban-drop-function 2:1 in v1.2.0.sql
DROP FUNCTION area(int);
