"""Search a built site for what a browser would fetch from elsewhere: `python docs/site/fetched.py build/site`."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

FETCHED = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "use": ("href", "xlink:href"),
    "image": ("href", "xlink:href"),
}
"""Attributes whose address is fetched when a page is opened, by the tag that has them. A link to click on is none."""
IDLE = {"canonical", "alternate", "author", "license", "next", "prev", "search"}
"""Kinds of <link> that are not fetched."""
ELSEWHERE = re.compile(r"^\s*(https?:)?//", re.I)
OF_STYLE = re.compile(r"""(?:url\(\s*|@import\s+)['"]?((?:https?:)?//[^'")\s;]+)""", re.I)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self._in_style = tag == "style"
        self.found += OF_STYLE.findall(given.get("style", ""))
        if tag == "link" and IDLE & {*given.get("rel", "").split()}:
            return
        self.found += [given[name] for name in FETCHED.get(tag, ()) if ELSEWHERE.match(given.get(name, ""))]

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.found += OF_STYLE.findall(data)


def of_page(text: str) -> list[str]:
    """Return the addresses elsewhere that a browser fetches when it opens this HTML."""
    page = _Page()
    page.feed(text)
    return page.found


def of_site(folder: Path) -> dict[str, list[str]]:
    """Return these addresses by file, of the pages and style sheets below a folder."""
    found = {file: of_page(file.read_text()) for file in folder.rglob("*.html")}
    found |= {file: OF_STYLE.findall(file.read_text()) for file in folder.rglob("*.css")}
    return {str(file.relative_to(folder)): addresses for file, addresses in sorted(found.items()) if addresses}


if __name__ == "__main__":
    site = Path(sys.argv[1])
    if not (site / "index.html").exists():
        sys.exit(f"{site} is no built site: it has no index.html.")
    everywhere = of_site(site)
    for name, addresses in everywhere.items():
        print(name, *sorted({*addresses}))
    sys.exit(1 if everywhere else 0)
