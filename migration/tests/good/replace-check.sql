ALTER TABLE features DROP CONSTRAINT kind, ADD CONSTRAINT kind CHECK (kind IN ('a', 'b', 'c')) NOT VALID;
