-- found by rehearsal: 42704 or 58P01: the extension is not there
-- file: v1.2.0.sql
CREATE EXTENSION no_such_extension;
