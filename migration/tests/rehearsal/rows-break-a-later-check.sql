-- found by rehearsal: 23514: drafts are written by the version that serves
-- file: v1.2.0.sql
ALTER TABLE orders ADD CONSTRAINT no_drafts CHECK (status <> 'draft') NOT VALID;
