-- the database that column-twice.sql meets
CREATE TABLE features (id int, name text);
