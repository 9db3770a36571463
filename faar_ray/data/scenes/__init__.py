"""The embedded data set: ray-cast rooms with exact labels."""
