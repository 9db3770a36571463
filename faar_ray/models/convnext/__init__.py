"""ConvNeXt networks."""
