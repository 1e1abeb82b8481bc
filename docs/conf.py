"""The documentation site: `sphinx-build -W docs build/site`, after `npm ci --prefix docs` for the formulas."""

import shutil
import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent
# The notebook stands among the examples; here it is a page, with the outputs that it has.
shutil.copyfile(DOCS.parent / "examples" / "find_a_mistake.ipynb", DOCS / "learn" / "find_a_mistake.ipynb")
sys.path[:0] = [str(DOCS.parent), str(DOCS / "extensions")]

project = "manual-bp"
author = "the authors of manual-bp"
release = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "docstrings",
    "formulas",
    "generated_tables",
    "repository_files",
]
exclude_patterns = ["node_modules", "extensions", "figures"]
nitpicky = False  # the annotations of NumPy, torch and JAX have no pages here

html_theme = "furo"
html_title = "manual-bp"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_fence_as_directive = ["math"]  # GitHub renders ```math too
myst_heading_anchors = 3
myst_dmath_double_inline = False

nb_execution_mode = "force"
nb_execution_excludepatterns = ["learn/find_a_mistake.ipynb"]  # tests/test_examples.py runs it
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
# Shown by their names, which manual_bp.protocol and oracles.rule define.
_ALIASES = "Array Arrays Params Cache Number DTypeLike Reduction Primals Cotangents Delta Output Pullback ForeignArray"
autodoc_type_aliases = {name: name for name in _ALIASES.split()}

copybutton_prompt_text = "$ "
