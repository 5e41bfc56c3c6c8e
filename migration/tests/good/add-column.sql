ALTER TABLE features ADD COLUMN title text, ADD COLUMN state text NOT NULL DEFAULT 'new', ADD COLUMN at timestamptz DEFAULT now();
