"""Feature maps, filters, occlusion maps and model comparison."""
