-- found by rehearsal: 23503: a row points to no layer
-- file: v1.2.0.sql
ALTER TABLE features ADD CONSTRAINT layer FOREIGN KEY (layer_id) REFERENCES layers (id) NOT VALID;
ALTER TABLE features VALIDATE CONSTRAINT layer;
