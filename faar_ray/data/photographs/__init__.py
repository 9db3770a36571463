"""Readers of data sets of photographs in files."""
