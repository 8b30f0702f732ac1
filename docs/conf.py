"""Sphinx: the pages of docs/ and benchmarks/results/ as a site. `sphinx-build -W -c docs . build/site` builds it.

The source folder is the repository itself, so a link that works on a code host works on the site, and results are shown from
where they lie.
"""

import os
import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent / "site"))

import api
import assets
import breaks
import docstrings
import navigation

import rlgrad

ROOT = Path(__file__).resolve().parents[1]
ADDRESSES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]

project = "rlgrad"
author = copyright = "The rlgrad authors"
version = release = rlgrad.__version__
language = "en"

extensions = [
    "myst_nb",  # Markdown, and notebooks with the outputs that they were saved with
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
root_doc = navigation.HOME
include_patterns = [*navigation.FOLDERS, "docs/api/*.rst"]

html_theme = "furo"
html_title = "rlgrad"
html_static_path = ["site/static", assets.mathjax()]
html_css_files = ["site.css"]
html_logo = html_favicon = "site/static/logo.svg"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#8a3b12", "color-brand-content": "#8a3b12"},
    "dark_css_variables": {"color-brand-primary": "#f0a36b", "color-brand-content": "#f0a36b"},
    "source_repository": f"{ADDRESSES['Source']}/",
    "source_branch": "main",
    "source_directory": "",
    "footer_icons": [
        {"name": name, "url": ADDRESSES[name], "html": name, "class": "footer-words"} for name in ("Source", "Issues")
    ],
}
html_extra_path = ["site/extra"]  # index.html, which leads to the home page
html_copy_source = False
html_show_sphinx = False

highlight_language = "text"
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]  # ```math is what code hosts typeset as well
myst_heading_anchors = 3
mathjax_path = assets.MATHJAX  # a file of the site itself: nothing is fetched when a page is opened
mathjax3_config = {"svg": {"fontCache": "local"}, "options": {"enableMenu": False}}
nb_execution_mode = "off"  # `python docs/site/notebooks.py` runs them
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
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
    app.connect("html-page-context", breaks.add)
    app.connect("env-get-outdated", lambda *_: [navigation.HOME])  # pages may have come or gone
