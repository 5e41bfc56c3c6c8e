-- expect: breaking renaming-object 2:1 in v1.2.0.sql
ALTER TYPE state RENAME VALUE 'new' TO 'fresh';
