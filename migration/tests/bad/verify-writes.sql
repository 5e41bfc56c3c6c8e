-- expect: refused verify-writes 3:1 in v1.2.0.verify.sql
SELECT true;
UPDATE features SET name = '';
