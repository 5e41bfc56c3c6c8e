-- expect: breaking ban-alter-identity 2:22 in v1.2.0.sql
ALTER TABLE features ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;
