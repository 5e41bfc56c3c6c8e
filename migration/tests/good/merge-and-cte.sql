WITH old AS (SELECT id FROM features WHERE state = 'x')
UPDATE features f SET state = 'y' FROM old WHERE f.id = old.id;
INSERT INTO layers (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET id = EXCLUDED.id;
