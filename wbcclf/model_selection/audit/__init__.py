"""What makes a score too good, and labels that are probably wrong, before anybody trains."""
