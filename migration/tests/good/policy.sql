CREATE POLICY own ON features USING (owner = current_user);
GRANT SELECT ON features TO web;
