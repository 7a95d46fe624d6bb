"""A run as a page: one file that needs nothing else, or the same served while the job trains."""
