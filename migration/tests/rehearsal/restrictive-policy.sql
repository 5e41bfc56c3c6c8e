-- found by rehearsal: PM0340 (rows vanish from the view of the version that serves)
-- file: v1.2.0.sql
CREATE POLICY few ON features AS RESTRICTIVE USING (id > 1);
