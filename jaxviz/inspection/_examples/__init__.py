"""Top-activating images of each unit."""
