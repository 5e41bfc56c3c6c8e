-- the database that duplicate-rows.sql meets
CREATE TABLE features (id int, name text);
INSERT INTO features VALUES (1, 'a'), (2, 'a');
