"""Activation maximization: visualize, invert, caricature, accentuate and DeepDream."""
