-- found by rehearsal: 42703: the trigger's function fails at the first row
-- file: v1.2.0.sql
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
  NEW.changed_at := now();
  RETURN NEW;
END $$;
CREATE TRIGGER stamp BEFORE INSERT ON features FOR EACH ROW EXECUTE FUNCTION stamp();
