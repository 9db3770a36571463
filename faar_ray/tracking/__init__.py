"""What a search leaves behind: rank traces (Parquet, the truth) and MLflow runs (the view)."""
