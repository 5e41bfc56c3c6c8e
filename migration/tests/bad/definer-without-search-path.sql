-- expect: dangerous function-search-path 2:1 in v1.2.0.sql
CREATE FUNCTION admin() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1';
