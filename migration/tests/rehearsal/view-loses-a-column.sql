-- found by rehearsal: 42P16: CREATE OR REPLACE VIEW cannot drop columns
-- file: v1.2.0.sql
CREATE OR REPLACE VIEW names AS SELECT id FROM features;
