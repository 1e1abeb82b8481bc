"""Optimizers, one file each; pure functions of parameters, gradients and state."""

from .sgd import SGD as SGD
