-- the database that rights-lost-with-a-view.sql meets
CREATE TABLE features (id serial PRIMARY KEY, name text);
INSERT INTO features (name) VALUES ('a'), ('b');
CREATE VIEW names AS SELECT name FROM features;
GRANT SELECT ON names TO app;
REVOKE ALL ON names FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM app;
