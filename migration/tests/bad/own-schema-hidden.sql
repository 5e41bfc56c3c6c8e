-- expect: refused own-schema 2:1 in v1.2.0.sql
DO $$ BEGIN DELETE FROM "pointsman".fence; END $$;
