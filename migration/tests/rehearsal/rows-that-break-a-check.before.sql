-- the database that rows-that-break-a-check.sql meets
CREATE TABLE features (id int, area int);
INSERT INTO features VALUES (1, -1);
