"""Convolutions, and the lowerings that are fast on CPUs."""
