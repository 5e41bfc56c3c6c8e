-- found by rehearsal: 2BP01 when the contract file drops what a view needs
-- file: v1.2.0.contract.sql
ALTER TABLE features DROP COLUMN name;
