"""EfficientNet, EfficientNet-Lite and MobileNet-type convolutional networks."""
