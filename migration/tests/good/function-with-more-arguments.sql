DROP FUNCTION size_of(int);
CREATE FUNCTION size_of(area int, unit text DEFAULT 'm') RETURNS text LANGUAGE sql AS $$ SELECT area || unit $$;
