-- the database that view-made-again-with-less.sql meets
CREATE TABLE features (id int, name text);
CREATE VIEW names AS SELECT id, name FROM features;
