-- expect: breaking adding-foreign-key-constraint 2:22 in v1.2.0.sql
ALTER TABLE features ADD CONSTRAINT layer FOREIGN KEY (layer_id) REFERENCES layers (id);
