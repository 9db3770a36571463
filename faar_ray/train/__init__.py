"""Training: `fit.fit` is the one loop; `ray_runtime` runs it on several workers."""
