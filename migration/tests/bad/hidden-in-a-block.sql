-- expect: breaking hidden-change 2:1 in v1.2.0.sql
DO $$
BEGIN
  ALTER TABLE features RENAME COLUMN name TO title;
END $$;
