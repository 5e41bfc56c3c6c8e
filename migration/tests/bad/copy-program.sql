-- expect: refused server-file 2:1 in v1.2.0.sql
COPY features FROM PROGRAM 'curl http://example.org';
