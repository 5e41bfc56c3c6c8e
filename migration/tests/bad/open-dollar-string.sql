-- expect: refused parse-error 2:4 in v1.2.0.sql
DO $body$ BEGIN END $$;
