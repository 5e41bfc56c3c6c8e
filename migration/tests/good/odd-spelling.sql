/* licence; /* nested; */ */
SET LOCAL work_mem = '64MB';
CREATE TABLE "Odd;Name" ("a""b" text DEFAULT E'it\'s; --', c text DEFAULT $x$ ; $$ $x$);;
COMMENT ON TABLE "Odd;Name" IS 'x;y';
