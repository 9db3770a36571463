"""Data sets with dense labels: `load_dataset`, then `batches`."""

from __future__ import annotations

from faar_ray.data.datasets import Reader, check_labels, open_split
from faar_ray.data.dense import DenseDataset, batches, unnormalise
from faar_ray.data.loading import check_root, load_dataset

__all__ = [
    "DenseDataset",
    "Reader",
    "batches",
    "check_labels",
    "check_root",
    "load_dataset",
    "open_split",
    "unnormalise",
]
