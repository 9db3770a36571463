"""One file for each command of `python -m faar_ray.data`: `add_to` its options to the parser, and `run` it."""
