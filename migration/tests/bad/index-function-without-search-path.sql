-- expect: dangerous function-search-path 2:1 in v1.2.0.sql
CREATE FUNCTION norm(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower(t)';
CREATE INDEX CONCURRENTLY by_norm ON features (norm(name));
