-- found by rehearsal: PM0340 (its numbers would come twice)
-- file: v1.2.0.sql
ALTER SEQUENCE features_id_seq RESTART WITH 1;
