"""torch, JAX and CuPy as modules that are imported when one of their names is first used.

References read as in the framework's own documentation (``F.relu(z)``, ``jnp.exp(z)``), and importing them loads
neither framework.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any, TypeAlias

# The frameworks' own array types, which mypy does not follow; see follow_imports in pyproject.toml.
Tensor: TypeAlias = Any
JaxArray: TypeAlias = Any


class LazyModule(ModuleType):
    """Stands for a module, which is imported when an attribute is first read."""

    def __getattr__(self, name: str) -> Any:
        # A perturbed evaluation reads thousands of names, and import_module takes microseconds for a module it knows.
        return getattr(sys.modules.get(self.__name__) or import_module(self.__name__), name)

    def __reduce__(self) -> tuple[type[LazyModule], tuple[str]]:
        return LazyModule, (self.__name__,)  # a subject that is sent to another process may refer to it


torch = LazyModule("torch")
F = LazyModule("torch.nn.functional")
jax = LazyModule("jax")
jnp = LazyModule("jax.numpy")
lax = LazyModule("jax.lax")
cupy = LazyModule("cupy")
