DO $body$
DECLARE r record;
BEGIN
  FOR r IN SELECT id FROM layers LOOP
    INSERT INTO features (layer_id) VALUES (r.id);
  END LOOP;
END $body$;
