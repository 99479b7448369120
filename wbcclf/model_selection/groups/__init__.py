"""Which pictures show the same cell, found out from the pictures."""
