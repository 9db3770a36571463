"""Training: one loop, `fit`, and reading the test split."""

from faar_ray.train.fit import NonFiniteLoss, fit, read_test

__all__ = ["NonFiniteLoss", "fit", "read_test"]
