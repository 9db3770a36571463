"""The report's numbers: groups, noise, importance, knee."""
