-- the database that division-by-zero.sql meets
CREATE TABLE features (id int, area int, share int);
INSERT INTO features VALUES (1, 0);
