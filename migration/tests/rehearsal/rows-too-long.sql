-- found by rehearsal: 22001: a value does not fit
-- file: v1.2.0.sql
INSERT INTO features (name) SELECT name FROM old_features;
