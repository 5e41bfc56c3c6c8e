-- expect: breaking detach 2:20 in v1.2.0.sql
ALTER TABLE events DETACH PARTITION events_2023 CONCURRENTLY;
