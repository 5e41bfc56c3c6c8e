CREATE TABLE IF NOT EXISTS a (id int);
CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, layer int REFERENCES layers (id));
CREATE UNIQUE INDEX t_layer ON t (layer);
ALTER TABLE t ADD CONSTRAINT positive CHECK (layer > 0), ALTER COLUMN layer SET NOT NULL;
ALTER TABLE t ADD COLUMN x uuid DEFAULT gen_random_uuid();
ALTER TABLE t RENAME TO things;
CREATE INDEX ON things (x);
INSERT INTO things (layer) SELECT id FROM layers;
UPDATE things SET layer = 1;
