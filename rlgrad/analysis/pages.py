"""HTML pages in one file: no script, no request, light and dark. Every text is escaped where it enters."""

import base64
import html
from collections.abc import Sequence
from typing import Any

from rlgrad.analysis import svg

# A browser refuses whatever would leave the page.
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root{color-scheme:light dark;--page:#fff;--text:#1b1f24;--soft:#5c6670;--line:#d8dde3;--box:#f4f6f8}
@media (prefers-color-scheme:dark){:root{--page:#14171b;--text:#e3e7eb;--soft:#9aa5b1;--line:#343b43;--box:#1d2228}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:1.2rem;background:var(--page);color:var(--text);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.7rem;line-height:1.2;overflow-wrap:anywhere}
h2{margin-top:2.4rem;border-top:1px solid var(--line);padding-top:1rem}
h3{margin:1.4rem 0 .3rem;font-size:1.05rem;overflow-wrap:anywhere}p{max-width:46rem}.soft{color:var(--soft);font-size:.9rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.92rem;margin:.6rem 0}
th,td{text-align:left;padding:.28rem .9rem .28rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
pre{background:var(--box);padding:.7rem .9rem;border-radius:6px;overflow-x:auto;font-size:.85rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,21rem),1fr));gap:.6rem 1.6rem}
.strip{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(46%,7.6rem),1fr));gap:.6rem}.strip img{width:100%}
figure{margin:.6rem 0}figcaption{color:var(--soft);font-size:.9rem}
figure img,figure video{max-width:100%;height:auto;border-radius:6px}
@media (max-width:640px){body{padding:.8rem}.fig{font-size:17px}.grid .fig{font-size:14px}}
"""


def page(title: str, *parts: str) -> str:
    """Return a whole page from its parts, which are HTML."""
    shown = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{shown}</title><style>{svg.style()}{_STYLE}</style></head>\n<body><h1>{shown}</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Return a part with a heading; nothing if it is empty."""
    content = "".join(parts)
    return f"<section><h2>{html.escape(title)}</h2>{content}</section>" if content else ""


def heading(title: str) -> str:
    """Return a heading inside of a section."""
    return f"<h3>{html.escape(title)}</h3>"


def text(words: str, soft: bool = False) -> str:
    """Return a paragraph."""
    return f"<p{' class=soft' if soft else ''}>{html.escape(words)}</p>"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], numbers: Sequence[int] = ()) -> str:
    """Return a table that scrolls where it is too wide. `numbers` are the columns that are aligned at the right."""

    def row(cells: Sequence[Any], tag: str) -> str:
        each = (
            f"<{tag}{' class=n' if i in numbers else ''}>{html.escape(str(cell))}</{tag}>"
            for i, cell in enumerate(cells)
        )
        return f"<tr>{''.join(each)}</tr>"

    head = f"<thead>{row(header, 'th')}</thead>" if header else ""
    return (
        f'<div class="scroll"><table>{head}<tbody>{"".join(row(cells, "td") for cells in rows)}</tbody></table></div>'
    )


def code(words: str) -> str:
    """Return lines as they are typed."""
    return f"<pre>{html.escape(words)}</pre>"


def folded(summary: str, *parts: str) -> str:
    """Return parts that a click shows."""
    return f"<details><summary>{html.escape(summary)}</summary>{''.join(parts)}</details>"


def figure(content: str, caption: str = "") -> str:
    """Return a figure with a caption, which is a text; the content is HTML."""
    said = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{content}{said}</figure>"


def grid(*parts: str) -> str:
    """Return parts side by side, as many as find room."""
    return f'<div class="grid">{"".join(parts)}</div>' if parts else ""


def film(content: bytes, kind: str) -> str:
    """Return a film that the page holds itself.

    Args:
        content: of the file.
        kind: `"gif"` or `"mp4"`.
    """
    data = base64.b64encode(content).decode()
    if kind == "gif":
        return f'<img alt="an episode" src="data:image/gif;base64,{data}">'
    return f'<video controls loop muted src="data:video/mp4;base64,{data}"></video>'


def strip(pictures: Sequence[tuple[bytes, str]]) -> str:
    """Return small pictures in rows, each a PNG with its caption."""
    each = []
    for content, caption in pictures:
        data = base64.b64encode(content).decode()
        image = f'<img alt="{html.escape(caption, quote=True)}" src="data:image/png;base64,{data}">'
        each.append(figure(image, caption))
    return f'<div class="strip">{"".join(each)}</div>' if each else ""
