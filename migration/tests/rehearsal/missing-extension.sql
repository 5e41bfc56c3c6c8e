-- found by rehearsal: 0A000 or 58P01: the extension is not there
-- file: v1.2.0.sql
CREATE EXTENSION no_such_extension;
