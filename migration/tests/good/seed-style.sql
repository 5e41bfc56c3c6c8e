CREATE TABLE layers (id serial PRIMARY KEY, name varchar(100));
INSERT INTO schema_version (version) VALUES ('1.2.0');
