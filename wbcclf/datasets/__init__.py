"""Images into memory."""
