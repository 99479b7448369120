"""What a network looks at, and whether that can be believed."""
