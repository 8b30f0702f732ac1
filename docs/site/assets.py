"""Files of other makers that the site serves itself."""

from importlib.metadata import files

MATHJAX = "tex-svg.js"
"""MathJax with its fonts as paths, one file: TeX in, SVG out."""


def mathjax() -> str:
    """Return where MathJax lies, in the package `django-static-mathjax`, which needs no Django for that."""
    package = "django-static-mathjax"
    found = [file for file in files(package) or () if file.match(f"es5/{MATHJAX}")]
    if len(found) != 1:
        raise FileNotFoundError(f"{package} has {len(found)} files es5/{MATHJAX}: pip install -e '.[docs]'.")
    return str(found[0].locate())
