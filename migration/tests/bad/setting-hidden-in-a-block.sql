-- expect: refused beyond-database 2:1 in v1.2.0.sql
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = app, public', current_database()); END $$;
