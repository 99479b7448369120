"""The version of this package, which model files name, too."""

__version__ = "0.1.0"
