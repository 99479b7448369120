"""Activations of the frozen blocks, computed once, and the keys that they are kept under."""
