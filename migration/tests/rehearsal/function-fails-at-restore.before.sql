-- the database that function-fails-at-restore.sql meets
CREATE TABLE known (code text);
INSERT INTO known VALUES ('a');
CREATE FUNCTION is_known(c text) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM known WHERE code = c)';
