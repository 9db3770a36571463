"""Data sets as Parquet shards."""
