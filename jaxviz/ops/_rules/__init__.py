"""Rules that replace the gradient of an operation."""
