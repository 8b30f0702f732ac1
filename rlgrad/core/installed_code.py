"""Installed code, found without importing any of it: entry points, and the distribution that brings a module.

Installed is what pip, conda or the system's packages put into a folder of this interpreter (`site-packages`), and the project
that `pip install -e` was given, whose modules lie elsewhere. A folder that is on the import path for another reason, because
Python was started there or a script lies there, has installed nothing.
"""

import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from urllib.parse import unquote, urlparse

_HOMES = ("site-packages", "dist-packages")
_OURS = ("gymnasium", "rlgrad")
_REQUIRED = re.compile(r"\s*(gymnasium|rlgrad)\b(?!-)", re.IGNORECASE)


def folders() -> tuple[str, ...]:
    """Return the folders of this interpreter that distributions are installed into, those that .pth files add included."""
    return _folders(tuple(sys.path))


@lru_cache(maxsize=8)
def _folders(path: tuple[str, ...]) -> tuple[str, ...]:
    del path
    own = [*getattr(site, "getsitepackages", list)(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if site.ENABLE_USER_SITE:
        own.append(site.getusersitepackages())
    added = [os.path.join(folder, line) for folder in own for line in _lines(Path(folder))]
    return tuple(dict.fromkeys(os.path.abspath(each) for each in [*own, *added] if Path(each).name in _HOMES))


def _lines(folder: Path) -> Iterator[str]:
    """Yield the folders that the .pth files of a folder add to the import path."""
    for file in sorted(folder.glob("*.pth")):
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        yield from (
            line.strip() for line in lines if line.strip() and not line.startswith(("#", "import ", "import\t"))
        )


def searched() -> tuple[str, ...]:
    """Return the import path without the folders that Python adds by itself: the current one, and that of the script."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        here = ""
    return _searched(tuple(sys.path), here, getattr(sys.modules.get("__main__"), "__file__", None))


@lru_cache(maxsize=8)
def _searched(path: tuple[str, ...], here: str, script: str | None) -> tuple[str, ...]:
    implied = {here, *([] if script is None else [os.path.dirname(os.path.realpath(script))])}
    kept = folders()
    return tuple(p for p in path if p and (os.path.realpath(p) not in implied or os.path.abspath(p) in kept))


def entry_points(path: Sequence[str]) -> list[EntryPoint]:
    """Return rlgrad's entry points of the distributions on an import path.

    Of two distributions of one name an installed one counts, else the first: `pip install` leaves a second description of what
    it installs in the project's folder, which may be on the path as well.
    """
    found: dict[str, list[EntryPoint]] = {}
    for distribution in distributions(path=list(path)):
        points = [point for point in distribution.entry_points if point.group.startswith("rlgrad.")]
        name = _canonical(distribution.name)
        if points and (name not in found or (is_installed(points[0]) and not is_installed(found[name][0]))):
            found[name] = points
    return [point for points in found.values() for point in points]


def is_installed(point: EntryPoint) -> bool:
    """Return True if an entry point is one of an installed distribution."""
    return point.dist is not None and os.path.abspath(str(point.dist.locate_file(""))) in folders()


def distribution_of(module: str, outside: Path) -> str | None:
    """Return the installed distribution that brings a module and is made for rlgrad or Gymnasium.

    Made for them is what requires one of the two, be it for an extra alone. No other package has anything that a config can
    name, and importing just any module has effects of its own.

    Args:
        module: its dotted name.
        outside: a folder, in which nothing counts as installed.

    Returns:
        The distribution's name. `None`: there is none, or the module is found elsewhere.
    """
    file = file_of(module)
    if file is None or _is_below(file, str(outside)) or any(part.startswith("_") for part in module.split(".")):
        return None
    return next((d.name for d in _made_for_us(folders()) if _brings(d, module, file, outside)), None)


def file_of(module: str) -> str | None:
    """Return the file that importing a module would execute, by the rules of `import` and without importing its packages.

    Args:
        module: its dotted name.

    Returns:
        Its absolute path. `None`: there is no such module, or no file of it, as of Python's own and of namespaces.
    """
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts) or parts[0] in sys.stdlib_module_names:
        return None
    path: list[str] | None = None
    spec: ModuleSpec | None = None
    for end in range(1, len(parts) + 1):
        spec = _spec(".".join(parts[:end]), path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return None if spec is None or not spec.has_location or spec.origin is None else os.path.abspath(spec.origin)


def _spec(name: str, path: list[str] | None) -> ModuleSpec | None:
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    if isinstance(loaded, ModuleSpec):
        return loaded
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except KeyError:  # a namespace asks its package for more of it, and that is not imported
            spec = ModuleSpec(name, None, is_package=True)
            inside = [os.path.join(each, name.rpartition(".")[2]) for each in path or ()]
            spec.submodule_search_locations = [each for each in inside if os.path.isdir(each)]
        if spec is not None:
            return spec
    return None


@lru_cache(maxsize=8)
def _made_for_us(places: tuple[str, ...]) -> tuple[Distribution, ...]:
    """Return the installed distributions that rlgrad and Gymnasium are, or that require them."""
    everything = distributions(path=list(places))
    return tuple(
        each for each in everything if _canonical(each.name) in _OURS or any(map(_REQUIRED.match, each.requires or []))
    )


def _brings(distribution: Distribution, module: str, file: str, outside: Path) -> bool:
    """Return True if a distribution installed the file of a module."""
    top = module.partition(".")[0]
    declared = (distribution.read_text("top_level.txt") or "").split()
    home = os.path.abspath(str(distribution.locate_file("")))
    if _is_below(file, home):
        listed = distribution.files
        if listed is None:  # packages of the system list nothing
            return top in (declared or [_canonical(distribution.name).replace("-", "_")])
        relative = Path(file).relative_to(home).as_posix()
        return any(str(each) == relative for each in listed)
    project = _editable(distribution)
    if project is None or not _is_below(file, project):
        return False
    # Without a list of its packages a project has installed all that lies in it: not so what came there with a run.
    return top in declared if declared else not _is_below(file, str(outside.parent))


def _editable(distribution: Distribution) -> str | None:
    """Return the folder of a project that `pip install -e` was given. `None`: this is no such distribution."""
    import json

    try:
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        editable, url = origin.get("dir_info", {}).get("editable", False), urlparse(str(origin.get("url")))
    except (ValueError, AttributeError):
        return None
    return unquote(url.path) if editable and url.scheme == "file" else None


def _is_below(file: str, folder: str) -> bool:
    """Return True if a path, or what its links lead to, lies in a folder."""
    return any(
        Path(f).is_relative_to(d) for f, d in ((file, os.path.abspath(folder)), map(os.path.realpath, (file, folder)))
    )


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
