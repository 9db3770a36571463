"""faar_ray: Ray-based hyperparameter search for rank-adaptive multi-task fine-tuning (FAAR, Free Sinewich)."""

__version__ = "0.1.0"
