"""Order of the pages in the site's navigation. A page that no section names stands under the section with `docs/*`."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HOME = "docs/README"
FOLDERS = ("docs/*.md", "docs/*/*.md", "examples/README.md", "examples/*.ipynb", "benchmarks/results/*.md")
SECTIONS = {
    "Start": (
        *(f"docs/{name}" for name in ("first-steps", "which-agent", "coming-from", "scope", "faq", "glossary")),
        "docs/command-line",
        *(
            f"docs/{name}"
            for name in ("configs", "shipped-configs", "run-settings", "agent-settings", "update-settings")
        ),
    ),
    "Notebooks": (
        *(f"examples/{name}" for name in ("README", "first-steps", "gradients", "own-agent", "own-environment")),
        "examples/*",
    ),
    "Agents": (
        *(
            f"docs/agents/{name}"
            for name in ("reinforce", "a2c", "ppo", "impala", "npg", "trpo", "dqn", "qr-dqn", "c51", "pqn")
        ),
        *(f"docs/agents/{name}" for name in ("stream-ac", "stream-q", "stream-sarsa")),
        "docs/agents/*",
        "docs/table",
        "docs/replay",
        "docs/from-demonstrations",
        "docs/streams",
        "docs/prediction",
        "docs/agents/your-own",
        "docs/agents/publishing",
    ),
    "The gradient primitive": (
        "docs/gradients/README",
        "docs/gradients/arguments",
        "docs/gradients/models",
        "docs/gradients/*",
    ),
    "Environments": (
        "docs/your-environment",
        "docs/environments",
        "docs/environments-table",
        "docs/compiled-environments",
        "docs/encoders",
        "docs/collectors",
        "docs/memory",
        "docs/self-play",
    ),
    "Runs": (
        *(
            f"docs/{name}"
            for name in ("progress", "metrics", "many-machines", "tuning-practice", "tuning", "diagnostics")
        ),
        *(f"docs/{name}" for name in ("logs", "resume", "export", "deploying", "failures")),
        "docs/*",
    ),
    "Results": (*(f"benchmarks/results/{name}" for name in ("learning", "speed", "primitive")), "benchmarks/results/*"),
    "Reference": ("docs/house", "docs/releasing", "docs/api/rlgrad", "docs/api/*"),
}


def sections(pages: list[str]) -> dict[str, list[str]]:
    """The pages of each section, in order. Names come before patterns: a page that is named anywhere no pattern takes."""
    named = {pattern for patterns in SECTIONS.values() for pattern in patterns} | {HOME}
    return {
        title: [page for pattern in patterns for page in _matches(pattern, pages, named)]
        for title, patterns in SECTIONS.items()
    }


def _matches(pattern: str, pages: list[str], named: set[str]) -> list[str]:
    if "*" not in pattern:
        return [page for page in pages if page == pattern]
    depth = pattern.count("/")
    return [page for page in pages if page not in named and page.count("/") == depth and fnmatchcase(page, pattern)]


def pages(root: Path) -> list[str]:
    """All pages there are, by their paths without suffix."""
    found = [path for pattern in (*FOLDERS, "docs/api/*.rst") for path in root.glob(pattern)]
    return sorted(str(path.relative_to(root).with_suffix("")) for path in found)


def add_to_home(app: "Sphinx", page: str, content: list[str]) -> None:
    """The table of contents, at the end of the home page: there alone, so that a code host does not show it."""
    if page == HOME:
        for title, members in sections(pages(Path(app.srcdir))).items():
            listed = "\n".join(f"/{member}" for member in members)
            content[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{listed}\n```\n"
