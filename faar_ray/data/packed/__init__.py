"""Photographs with labels as Parquet shards: what `python -m faar_ray.data pack` writes, and their reader."""
