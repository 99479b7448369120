"""Predict with exported models, without PyTorch."""
