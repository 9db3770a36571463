"""Adapters that warp the singular values of a frozen weight (DiTASK)."""
