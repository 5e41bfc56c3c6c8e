-- found by rehearsal: 23503: the version that serves writes rows without a layer
-- file: v1.2.0.sql
ALTER TABLE features ADD CONSTRAINT layer FOREIGN KEY (layer_id) REFERENCES layers (id) NOT VALID;
