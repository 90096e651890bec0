"""torchvision's networks as Flax modules, and the registry of their weights."""
