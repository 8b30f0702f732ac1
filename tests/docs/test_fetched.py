"""Opening a page of the site asks no other server: the search for such requests, and the files that the site serves itself."""

import re
from pathlib import Path

import assets
import fetched
import pytest

SITE = Path(__file__).resolve().parents[2] / "docs" / "site"


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/mathjax.js"></script>',
        '<script async src="//cdn.example/a.js"></script>',
        '<link rel="stylesheet" href="http://fonts.example/f.css">',
        '<link rel="preload icon" href="https://a.example/i.png">',
        "<p><img alt='x' src='HTTPS://a.example/x.png'>",
        '<svg><image xlink:href="https://a.example/x.png"/></svg>',
        '<p style="background: url(https://a.example/x.png)">',
        "<style>@import 'https://a.example/x.css';</style>",
    ],
)
def test_what_is_fetched_from_elsewhere_is_found(html):
    assert len(fetched.of_page(html)) == 1


@pytest.mark.parametrize(
    "html",
    [
        '<a href="https://github.com/rlgrad/rlgrad">source</a>',
        '<link rel="canonical" href="https://a.example/">',
        '<script src="../_static/tex-svg.js?v=1"></script><img src="x.png">',
        "<p>see https://a.example/x.js</p>",
        '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
    ],
)
def test_links_to_click_on_and_files_of_the_site_are_not(html):
    assert fetched.of_page(html) == []


def test_a_site_is_searched_file_by_file(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.html").write_text('<img src="https://a.example/x.png">')
    (tmp_path / "b.html").write_text('<img src="x.png">')
    (tmp_path / "c.css").write_text("p { background: url('//a.example/x.png') }")
    expected = {"docs/a.html": ["https://a.example/x.png"], "c.css": ["//a.example/x.png"]}
    assert fetched.of_site(tmp_path) == expected


def test_style_and_logo_fetch_nothing():
    for file in (SITE / "static").iterdir():
        assert fetched.of_page(file.read_text()) == []
        assert fetched.OF_STYLE.findall(file.read_text()) == []


def test_mathjax_is_one_file_of_an_installed_package():
    pytest.importorskip("mathjax", reason="pip install -e '.[docs]'")
    file = Path(assets.mathjax())
    assert file.name == assets.MATHJAX
    assert re.search(r"MathJax", file.read_text()[:20_000])
