"""Reads what a search left (Parquet, MLflow) and says what it found."""
