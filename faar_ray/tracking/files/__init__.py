"""The Parquet files of one trial."""
