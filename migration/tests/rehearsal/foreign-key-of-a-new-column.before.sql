-- the database that foreign-key-of-a-new-column.sql meets
CREATE TABLE features (id serial PRIMARY KEY, name text);
INSERT INTO features (name) VALUES ('a'), ('b');
CREATE TABLE owners (id int PRIMARY KEY);
