"""Looking at a set of pictures before anybody trains on it."""
