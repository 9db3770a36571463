"""Searches whose trials replay recorded epochs."""
