"""Spectral ranks: adapters rotated to their singular components, and cut to a budget."""
