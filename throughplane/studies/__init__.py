"""Method-comparison studies: simulated scans, methods, measures, one record per job, and reports made of records."""
