-- expect: refused beyond-database 2:1 in v1.2.0.contract.sql
REVOKE CONNECT ON DATABASE site FROM PUBLIC;
