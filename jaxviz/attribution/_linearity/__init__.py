"""Whether a traced program is linear or affine in its input."""
