-- expect: dangerous adding-field-with-default 2:22 in v1.2.0.sql
ALTER TABLE features ADD COLUMN number bigserial;
