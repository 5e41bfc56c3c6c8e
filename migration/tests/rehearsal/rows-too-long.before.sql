-- the database that rows-too-long.sql meets
CREATE TABLE features (name varchar(3));
CREATE TABLE old_features (name text);
INSERT INTO old_features VALUES ('long');
