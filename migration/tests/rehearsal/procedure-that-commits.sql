-- found by rehearsal: 2D000: a procedure that is called within a transaction cannot end it
-- file: v1.2.0.sql
CALL fill();
