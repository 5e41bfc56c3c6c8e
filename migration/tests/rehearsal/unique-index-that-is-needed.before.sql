-- the database that unique-index-that-is-needed.sql meets
CREATE TABLE features (id serial PRIMARY KEY, name text);
INSERT INTO features (name) VALUES ('a'), ('b');
CREATE UNIQUE INDEX by_name ON features (name);
