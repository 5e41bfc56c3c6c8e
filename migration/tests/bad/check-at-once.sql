-- expect: breaking constraint-missing-not-valid 2:22 in v1.2.0.sql
ALTER TABLE features ADD CONSTRAINT positive CHECK (area > 0);
