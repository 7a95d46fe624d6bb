"""A job: checked, started, watched, judged."""
