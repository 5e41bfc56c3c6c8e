-- the database that view-loses-a-column.sql meets
CREATE TABLE features (id int, name text);
CREATE VIEW names AS SELECT id, name FROM features;
