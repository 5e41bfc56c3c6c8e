-- found by rehearsal: the restore of the migrated copy fails: a function called by another finds nothing on an empty search_path
-- file: v1.2.0.sql
CREATE TABLE codes (code text CHECK (is_known(code)));
INSERT INTO codes VALUES ('a');
