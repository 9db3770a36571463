"""Runs jobs under Ray Tune."""
