"""Embeddings: vectors of many images, their neighbors, projections and pages."""
