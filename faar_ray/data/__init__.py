"""Data sets with dense labels: `load_dataset`, then `batches`."""

from __future__ import annotations

from faar_ray.data.dense import DenseDataset, batches, unnormalise
from faar_ray.data.loading import check_labels, check_root, dataset_channels, load_dataset

__all__ = [
    "DenseDataset",
    "batches",
    "check_labels",
    "check_root",
    "dataset_channels",
    "load_dataset",
    "unnormalise",
]
