"""Machines: node types, prices, capacity, cluster files."""
