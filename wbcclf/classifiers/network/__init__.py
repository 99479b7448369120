"""Preprocessing, chain and head as one module, and what it computes on."""
