-- the database that rows-break-a-later-key.sql meets
CREATE TABLE layers (id int PRIMARY KEY);
INSERT INTO layers VALUES (1);
CREATE TABLE features (id int PRIMARY KEY, layer_id int);
INSERT INTO features VALUES (1, 1), (2, 7);
