-- the database that rows-break-a-later-check.sql meets
CREATE TABLE orders (id int PRIMARY KEY, status text);
INSERT INTO orders VALUES (1, 'new'), (2, 'draft');
