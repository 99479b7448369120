"""Pages that people read: one file each, which asks for nothing and has no scripts."""
