-- expect: refused beyond-database 2:1 in v1.2.0.contract.sql
DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO web', current_database()); END $$;
