-- expect: dangerous way-down 4:1 in v1.2.0.sql
-- migrate:up
CREATE TABLE notes (id int PRIMARY KEY);
-- migrate:down
DROP TABLE notes;
