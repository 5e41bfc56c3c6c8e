-- expect: refused own-schema 2:1 in v1.2.0.sql
DROP SCHEMA IF EXISTS gis, Pointsman CASCADE;
