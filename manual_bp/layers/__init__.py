"""Layers with parameters, one file each."""

from .linear import Linear as Linear
