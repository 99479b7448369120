"""A model as a page and an HTTP API on one machine."""
