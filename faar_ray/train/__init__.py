"""Training: `fit.fit` is the one loop; `runtimes.ray_train` runs it on several workers."""
