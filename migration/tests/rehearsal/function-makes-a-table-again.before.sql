-- the database that function-makes-a-table-again.sql meets
CREATE TABLE features (id serial PRIMARY KEY, name text);
INSERT INTO features (name) VALUES ('a'), ('b');
CREATE FUNCTION renew() RETURNS void LANGUAGE plpgsql AS 'BEGIN DROP TABLE public.features; CREATE TABLE public.features (id int, name text); END';
