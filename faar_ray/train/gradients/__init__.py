"""Gradients beside those of the steps: of tasks on shared bases, and of whole batches without training."""
