"""Which versions judged."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("manual-bp", "numpy", "torch", "jax", "python-flint", "hypothesis")


def versions() -> dict[str, str]:
    """Return the version of each package that has a say, "not installed" where it is missing."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def versions_line() -> str:
    """Return them in one line."""
    return ", ".join(f"{package} {installed}" for package, installed in versions().items())
