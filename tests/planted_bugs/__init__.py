"""Operations of manual_bp with one thing wrong each, a file for each family; importing the package registers them."""

from importlib import import_module
from pkgutil import iter_modules

for _family in iter_modules(__path__):
    import_module(f"planted_bugs.{_family.name}")
