"""Training: `fit.fit` is the one loop, `fit.read_test` reads the test split."""
