"""What image files say of themselves, and how their pixels become an image; OpenCV's decoder."""
