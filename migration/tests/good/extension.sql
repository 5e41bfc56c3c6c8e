CREATE EXTENSION IF NOT EXISTS postgis;
CREATE TABLE shapes (id int PRIMARY KEY, shape geometry(Polygon, 4326) NOT NULL);
CREATE INDEX shapes_shape ON shapes USING gist (shape);
