"""The search: a space in, an answer out."""
