-- expect: refused session-setting 2:1 in v1.2.0.sql
SELECT pg_catalog.set_config('search_path', '', false);
