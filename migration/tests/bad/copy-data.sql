-- expect: refused copy-data 2:1 in v1.2.0.sql
COPY features (id) FROM stdin;
1
2
\.
SELECT 'it';s
