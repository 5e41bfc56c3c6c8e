ALTER TYPE state ADD VALUE 'archived';
INSERT INTO states VALUES ('archived');
