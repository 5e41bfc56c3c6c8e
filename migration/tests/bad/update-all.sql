-- expect: dangerous every-row-at-once 2:1 in v1.2.0.sql
UPDATE features SET title = name;
