-- expect: breaking disallowed-unique-constraint 2:22 in v1.2.0.sql
ALTER TABLE features ADD CONSTRAINT one_name UNIQUE (name);
