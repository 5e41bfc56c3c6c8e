-- the database that verify-fails.sql meets
CREATE TABLE features (id int);
