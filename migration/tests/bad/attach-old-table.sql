-- expect: dangerous attach-scan 2:20 in v1.2.0.sql
ALTER TABLE events ATTACH PARTITION events_2023 FOR VALUES FROM (1) TO (2);
