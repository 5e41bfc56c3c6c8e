-- found by rehearsal: PM0340 (what is written goes nowhere)
-- file: v1.2.0.sql
CREATE RULE quiet AS ON INSERT TO features DO INSTEAD NOTHING;
