-- found by rehearsal: PM0340 (the table is another one)
-- file: v1.2.0.sql
SELECT renew();
