-- pointsman: batch=id:5000
UPDATE features SET title = name WHERE title IS NULL;
