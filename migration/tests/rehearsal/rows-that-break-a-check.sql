-- found by rehearsal: 23514: a row is not positive
-- file: v1.2.0.sql
ALTER TABLE features ADD CONSTRAINT positive CHECK (area > 0) NOT VALID;
ALTER TABLE features VALIDATE CONSTRAINT positive;
