-- the database that restrictive-policy.sql meets
CREATE TABLE features (id serial PRIMARY KEY, name text);
INSERT INTO features (name) VALUES ('a'), ('b');
ALTER TABLE features ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_of_it ON features USING (true);
