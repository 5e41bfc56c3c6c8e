-- expect: dangerous not-null-scan 2:22 in v1.2.0.contract.sql
ALTER TABLE features ALTER COLUMN owner SET NOT NULL;
