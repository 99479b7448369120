"""The version of this package, which model files name, too."""

__version__ = "0.2.0"
