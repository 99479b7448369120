"""What the frozen blocks make of images, computed once, and the keys that it is kept under."""
