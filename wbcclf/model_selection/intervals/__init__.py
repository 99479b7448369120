"""How sure a score is where several pictures show one cell."""
