-- expect: dangerous require-concurrent-index-creation 3:1 in v1.2.0.contract.sql
ALTER TABLE features RENAME TO things;
CREATE INDEX by_name ON things (name);
