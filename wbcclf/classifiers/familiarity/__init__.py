"""What a classifier remembers of its training images, to know others by it."""
