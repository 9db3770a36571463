"""Data sets with dense labels: `load_dataset`, then its `batches`."""

from __future__ import annotations

from faar_ray.data.datasets import Reader, SplitData, check_labels, open_split
from faar_ray.data.dense import DenseDataset, unnormalise
from faar_ray.data.loading import check_root, load_dataset

__all__ = [
    "DenseDataset",
    "Reader",
    "SplitData",
    "check_labels",
    "check_root",
    "load_dataset",
    "open_split",
    "unnormalise",
]
