-- expect: breaking ban-revoke 2:1 in v1.2.0.sql
REVOKE SELECT ON features FROM web;
