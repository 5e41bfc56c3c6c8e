-- the database that orphan-rows.sql meets
CREATE TABLE layers (id int PRIMARY KEY);
CREATE TABLE features (id int, layer_id int);
INSERT INTO features VALUES (1, 7);
