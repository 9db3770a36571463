"""Free Sinewich: sine-modulated bases, Clock Net, low-pass."""
