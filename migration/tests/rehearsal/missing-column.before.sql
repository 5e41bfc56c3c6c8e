-- the database that missing-column.sql meets
CREATE TABLE features (id int);
INSERT INTO features SELECT generate_series(1, 10);
