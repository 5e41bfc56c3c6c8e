-- found by rehearsal: 2D000: a block within a transaction cannot end it
-- file: v1.2.0.sql
DO $$ BEGIN COMMIT; END $$;
