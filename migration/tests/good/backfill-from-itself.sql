-- pointsman: batch=id:5000
UPDATE features SET parent_name = (SELECT p.name FROM features AS p WHERE p.id = features.parent)
 WHERE features.parent_name IS NULL;
UPDATE features AS f SET parent_name = p.name, depth = f.depth + 1 FROM features AS p
 WHERE p.id = f.parent AND f.parent_name IS NULL AND depth < 9;
UPDATE public.features SET depth = depth + 1 FROM old.features AS before WHERE before.id = features.id AND before.depth > 3;
