-- expect: breaking ban-drop-type 2:1 in v1.2.0.sql
DROP TYPE state CASCADE;
CREATE TYPE state AS ENUM ('draft', 'live');
