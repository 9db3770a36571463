"""Sections of adapters."""
