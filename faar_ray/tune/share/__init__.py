"""Prefixes: what several trials train alike is trained once."""
