"""The section of decoders."""
