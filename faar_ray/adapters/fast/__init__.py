"""Autograd functions for adapted linears that skip needless products."""
