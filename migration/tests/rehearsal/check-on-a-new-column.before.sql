-- the database that check-on-a-new-column.sql meets
CREATE TABLE features (id serial PRIMARY KEY, name text);
INSERT INTO features (name) VALUES ('a'), ('b');
