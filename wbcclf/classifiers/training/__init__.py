"""Training, from a classifier's parameters and images to a trained network."""
