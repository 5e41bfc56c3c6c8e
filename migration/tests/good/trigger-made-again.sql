CREATE OR REPLACE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
  NEW.at := now(); -- commit; drop
  RETURN NEW;
END $$;
DROP TRIGGER IF EXISTS stamp ON features;
CREATE TRIGGER stamp BEFORE UPDATE ON features FOR EACH ROW EXECUTE FUNCTION stamp();
