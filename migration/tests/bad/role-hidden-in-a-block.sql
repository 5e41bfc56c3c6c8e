-- expect: refused beyond-database 2:1 in v1.2.0.contract.sql
DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'web') THEN ALTER ROLE web SET work_mem = '64MB'; END IF; END $$;
