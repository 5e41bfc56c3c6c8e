-- the database that function-drops-a-column.sql meets
CREATE TABLE features (id serial PRIMARY KEY, name text);
INSERT INTO features (name) VALUES ('a'), ('b');
CREATE FUNCTION tidy() RETURNS void LANGUAGE plpgsql AS 'BEGIN ALTER TABLE public.features DROP COLUMN name; END';
