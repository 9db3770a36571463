"""`bench front`: whether one run with spectral cuts gives the whole front. Spaces in spaces/, a study in studies.py."""
