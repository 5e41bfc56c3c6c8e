-- expect: dangerous function-search-path 2:1 in v1.2.0.sql
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO changes VALUES (NEW.id);
  RETURN NEW;
END $$;
CREATE TRIGGER stamp AFTER INSERT ON features FOR EACH ROW EXECUTE FUNCTION stamp();
