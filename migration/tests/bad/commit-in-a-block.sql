-- expect: refused own-transaction 2:1 in v1.2.0.sql
DO $$ BEGIN COMMIT; END $$;
