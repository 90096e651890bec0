"""A network as a static site: a map, its layers, their units with pictures, photos and search; it opens from disk."""

from jaxviz.gallery._build import build as build
