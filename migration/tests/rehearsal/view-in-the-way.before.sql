-- the database that view-in-the-way.sql meets
CREATE TABLE features (id int, name text);
CREATE VIEW names AS SELECT id, name FROM features;
