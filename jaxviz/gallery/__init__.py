"""A network as a static site: a map, its layers, their units, with pictures, photos and search; opened from the disk."""

from jaxviz.gallery._build import build as build
