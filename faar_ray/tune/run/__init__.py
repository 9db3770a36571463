"""A run's folder, jobs, data and prices."""
