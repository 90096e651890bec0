"""Directions in activation space: grids, neuron groups, atlases."""
