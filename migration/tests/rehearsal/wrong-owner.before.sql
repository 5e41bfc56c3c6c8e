-- the database that wrong-owner.sql meets
CREATE TABLE features (id int);
-- owned by another role
