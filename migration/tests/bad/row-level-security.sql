-- expect: breaking row-level-security 2:22 in v1.2.0.sql
ALTER TABLE features ENABLE ROW LEVEL SECURITY;
