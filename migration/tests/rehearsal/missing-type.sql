-- found by rehearsal: 42704: type "geometry" does not exist
-- file: v1.2.0.sql
CREATE TABLE shapes (id int, shape geometry(Polygon, 4326));
