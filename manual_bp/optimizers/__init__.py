"""Optimizers, one file each; pure functions of parameters, gradients and state."""

from .adam import Adam as Adam
from .adamw import AdamW as AdamW
from .clipped import Clipped as Clipped
from .clipped import clip_by_global_norm as clip_by_global_norm
from .sgd import SGD as SGD
