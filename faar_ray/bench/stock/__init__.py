"""The same space searched by this package and by plain Ray Tune."""
