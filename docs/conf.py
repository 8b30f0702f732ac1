"""Sphinx: the pages of docs/ and benchmarks/results/ as a site. `sphinx-build -W -c docs . build/site` builds it.

The source folder is the repository itself, so a link that works on a code host works on the site, and results are shown from
where they lie.
"""

import os
import sys
from pathlib import Path

from sphinx.application import Sphinx

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent / "site"))

import api
import docstrings
import navigation

import rlgrad

ROOT = Path(__file__).resolve().parents[1]

project = "rlgrad"
author = copyright = "The rlgrad authors"
version = release = rlgrad.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = navigation.HOME
include_patterns = [*navigation.FOLDERS, "docs/api/*.rst"]

html_theme = "furo"
html_title = "rlgrad"
html_static_path = ["site/static"]
html_css_files = ["site.css"]
html_extra_path = ["site/extra"]  # index.html, which leads to the home page
html_copy_source = False
html_show_sphinx = False

highlight_language = "text"
myst_heading_anchors = 3
smartquotes = False

default_role = "py:obj"  # `name` in a docstring: code, and a link where something has that name
add_module_names = False
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_attr_annotations = False
napoleon_use_rtype = False


def setup(app: Sphinx) -> None:
    """Write the pages of the reference, and hang all pages into the navigation."""
    api.write(ROOT / "docs" / "api")
    app.connect("autodoc-process-docstring", docstrings.as_rst, priority=100)  # before napoleon sees it
    app.connect("autodoc-skip-member", docstrings.is_undescribed_field)
    app.connect("missing-reference", api.resolve)
    app.connect("source-read", navigation.add_to_home)
    app.connect("env-get-outdated", lambda *_: [navigation.HOME])  # pages may have come or gone
