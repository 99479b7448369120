"""How good a classifier is, how sure that is, and whether another one is better."""
