"""The reference: a page for each public module, with everything that it lists in `__all__`."""

import importlib
import inspect
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from docstrings import escaped
from sources import description, kind

import rlgrad

BESIDE = ("agents", "envs")  # folders of their own in the repository


def modules() -> list[ModuleType]:
    """rlgrad, and what is directly in it and lists public names that it has not itself, or is listed by it."""
    names = [found.name for found in pkgutil.iter_modules(rlgrad.__path__) if not found.name.startswith("_")]
    listed = [name for name in rlgrad.__all__ if inspect.ismodule(getattr(rlgrad, name))]
    found = {name: importlib.import_module(f"rlgrad.{name}") for name in sorted({*names, *BESIDE})}
    return [rlgrad, *(m for n, m in found.items() if n in listed or {*getattr(m, "__all__", ())} - {*rlgrad.__all__})]


def public_names(module: ModuleType) -> list[str]:
    """Return the names in `__all__`, or those defined in the module; not modules, which have pages of their own."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    return [name for name in names if not inspect.ismodule(getattr(module, name))]


@cache
def homes() -> dict[int, str]:
    """The full name under which each thing is described, by its id: that of the package it belongs to, or of rlgrad."""
    home: dict[int, str] = {}
    for module in [*modules()[1:], rlgrad]:
        for name in public_names(module):
            home.setdefault(id(getattr(module, name)), f"{module.__name__}.{name}")
    return home


def page(module: ModuleType) -> str:
    """A module's page: what it is for, a table of its names, and in full those that belong there."""
    title, home = module.__name__, homes()
    members = {name: getattr(module, name) for name in public_names(module)}
    lines = [title, "=" * len(title), f".. automodule:: {title}", "", ".. list-table::", ""]
    for name, value in members.items():
        first = escaped(description(name, value).partition("\n")[0])
        lines += [f"   * - :py:obj:`{name} <{home[id(value)]}>`", f"     - {first}"]
    for name, value in members.items():
        if home[id(value)] == f"{title}.{name}":
            lines += beginning_of_its_file(name, value) if title.rpartition(".")[2] in BESIDE else []
            lines += entry(f"{title}.{name}", value)
    return "\n".join([*lines, ""])


def beginning_of_its_file(name: str, value: Any) -> list[str]:
    """Of an agent or environment: its equations and sources stand there."""
    return ["", name, "-" * len(name), f".. automodule:: {value.__module__}"]


def entry(name: str, value: Any) -> list[str]:
    """All that is said of one thing."""
    if kind(value) == "data":
        module, _, own = name.rpartition(".")
        text = description(own, value)
        return [
            "",
            f".. py:data:: {own}",
            f"   :module: {module}",
            "",
            *(f"   {escaped(line)}" for line in text.splitlines()),
        ]
    if kind(value) == "class":
        telling = [b for b in value.__bases__ if id(b) in homes() or b.__module__.startswith(("keras", "gymnasium"))]
        return ["", f".. autoclass:: {name}", "   :members:", *(["   :show-inheritance:"] if telling else [])]
    return ["", f".. auto{kind(value)}:: {name}"]


def write(folder: Path) -> None:
    """Write the pages, and touch none that stays as it was."""
    folder.mkdir(exist_ok=True)
    pages = {folder / f"{module.__name__}.rst": page(module) for module in modules()}
    for file in set(folder.glob("*.rst")) - set(pages):
        file.unlink()
    for file, text in pages.items():
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def resolve(app: Any, env: Any, node: Any, text: Any) -> Any:
    """Where `Batch`, `gradients.plan` or `LogProb(actions)` lead from a page that does not describe them."""
    from sphinx.util.nodes import make_refnode

    name = str(node.get("reftarget")).removeprefix("rlgrad.").partition("(")[0]
    first, _, rest = name.partition(".")
    if node.get("refdomain") != "py" or not (rest or first[:1].isupper()):
        return None  # a word such as `load` may mean anything
    named = [full for full in homes().values() if full.endswith(f".{first}")]
    objects = env.get_domain("py").objects
    for full in [f"{one}.{rest}".rstrip(".") for one in named] + [f"rlgrad.{name}"]:
        if full in objects:
            found = objects[full]
            return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, text, full)
    return None
