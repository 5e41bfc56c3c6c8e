-- found by rehearsal: 23514: rows as the version that serves writes them are refused
-- file: v1.2.0.sql
ALTER TABLE features ADD COLUMN colour text;
ALTER TABLE features ADD CONSTRAINT coloured CHECK (colour IS NOT NULL) NOT VALID;
