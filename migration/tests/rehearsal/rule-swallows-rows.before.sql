-- the database that rule-swallows-rows.sql meets
CREATE TABLE features (id serial PRIMARY KEY, name text);
INSERT INTO features (name) VALUES ('a'), ('b');
