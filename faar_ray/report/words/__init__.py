"""The report's sentences."""
