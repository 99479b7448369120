"""What finds and cuts out white cells, with NumPy and OpenCV alone."""
