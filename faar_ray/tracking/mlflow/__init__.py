"""MLflow runs: a view of the run folder."""
