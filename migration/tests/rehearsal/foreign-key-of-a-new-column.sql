-- found by rehearsal: 23503: a default that nothing stands for
-- file: v1.2.0.sql
ALTER TABLE features ADD COLUMN owner int DEFAULT 1;
ALTER TABLE features ADD CONSTRAINT owned FOREIGN KEY (owner) REFERENCES owners (id) NOT VALID;
