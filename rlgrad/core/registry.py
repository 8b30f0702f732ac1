"""Names of classes: entry points of installed distributions, and places such as `file.py:Name` or `module:Name`.

Groups of entry points: `rlgrad.agents`, `rlgrad.envs`, `rlgrad.updates`, `rlgrad.collectors`, `rlgrad.logs`, `rlgrad.encoders`.
rlgrad's own classes stand in these groups like those of any other package. So a package can add to rlgrad without changing it,
and without being imported first.
"""

import ast
import functools
import hashlib
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Collection
from importlib.metadata import EntryPoint
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from rlgrad.core import installed_code
from rlgrad.core.checks import close_names

_OTHER_NAMES = {
    "ddqn": "dqn, whose field `double` is on",
    "double-dqn": "dqn, whose field `double` is on",
    "dueling-dqn": "dqn with `--agent.dueling True`",
    "iqn": "qr-dqn",
    "qrdqn": "qr-dqn",
    "rainbow": "c51 with `--agent.dueling True --agent.double True --agent.replay.n-steps 3 --agent.replay.prioritized True`, "
    "without noisy layers",
}


def installed(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group such as `rlgrad.agents`, of every installed distribution, by name."""
    return dict(_points(installed_code.searched()).get(group, {}))


@functools.lru_cache(maxsize=8)
def _points(path: tuple[str, ...]) -> dict[str, dict[str, EntryPoint]]:
    """Return rlgrad's groups of entry points on an import path. Reading all metadata takes some 10 ms, hence the cache."""
    groups: dict[str, dict[str, EntryPoint]] = {}
    # Ours come last, so that no other package takes the place of a name of ours.
    points = installed_code.entry_points(path)
    for point in sorted(points, key=lambda point: point.dist is not None and point.dist.name == "rlgrad"):
        groups.setdefault(point.group, {})[point.name] = point
    return groups


def agents() -> dict[str, EntryPoint]:
    """Return the installed agents by name."""
    return installed("rlgrad.agents")


def envs() -> dict[str, EntryPoint]:
    """Return the installed environments that are written in TensorFlow, by id."""
    return installed("rlgrad.envs")


def find(group: str, name: str) -> Any:
    """Return the class or function of a name.

    Args:
        group: of entry points, such as `rlgrad.agents`.
        name: an entry point's name, or a place: `my_agent.py:MyAgent`, `my_package.agents:MyAgent`.

    Raises:
        ValueError: there is no such name, file, module or class; the message has the names that are near.
    """
    noun = group.rpartition(".")[2].removesuffix("s")
    place, attribute = split(name)
    if not place:
        known = installed(group)
        if name not in known:
            raise ValueError(f"There is no {noun} {name!r}. {advice(name, known)} Your own: my_{noun}.py:Name.")
        return known[name].load()
    if place.endswith(".py"):
        return _from_script(Path(place), attribute) if _is_running(Path(place)) else from_file(Path(place), attribute)
    module = import_named(place, name)
    if not hasattr(module, attribute):
        raise ValueError(f"The module {place} has no {attribute!r}. {close_names(attribute, vars(module))}")
    return getattr(module, attribute)


def advice(name: str, known: Collection[str]) -> str:
    """Return a sentence with the known names that are near to a wrong one, or on an algorithm that is of another kind."""
    plain = name.lower().replace("_", "-")
    if plain in _OTHER_NAMES:
        return f"The nearest agent is {_OTHER_NAMES[plain]}."
    return close_names(name, known)


def split(name: str) -> tuple[str, str]:
    """Return the place of a name, `module` or `file.py`, and the name there. The place of a bare name is empty."""
    place, _, attribute = name.rpartition(":")
    return place, attribute


def import_named(module: str, asked: str) -> ModuleType:
    """Import a module by its dotted name.

    Args:
        module: the name. `import` would take others, such as `folder/file`, and execute what lies there.
        asked: the text that names it, for messages.

    Raises:
        ValueError: there is no such module.
    """
    if not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(
            f"{asked!r} asks for {module!r}, which is no dotted name of a module, and no file whose name ends in .py."
        )
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"{asked!r} asks for the module {module!r}, which cannot be imported: {error}.") from error


def _is_running(path: Path) -> bool:
    script = getattr(sys.modules["__main__"], "__file__", None)
    return script is not None and Path(script).resolve() == path.resolve()


def _from_script(path: Path, attribute: str) -> Any:
    """Return what the running script has defined so far: executed anew, it would do all its work again, and again."""
    names = vars(sys.modules["__main__"])
    if attribute not in names:
        raise ValueError(f"{path} is running, and has not defined {attribute!r} yet. {close_names(attribute, names)}")
    return names[attribute]


def name_of(group: str, thing: Any) -> str:
    """Return the name by which `find` finds a class or function: an entry point's, or its place.

    A place is `module:Name` if an installed distribution brings the module, else `file.py:Name`.
    """
    place = f"{thing.__module__}:{thing.__qualname__}"
    for name, point in installed(group).items():
        if point.value == place:
            return name
    file = getattr(sys.modules.get(thing.__module__), "__file__", None)
    if file is None or "site-packages" in Path(file).parts:
        return place
    return f"{file}:{thing.__qualname__}"


def spoken_name(thing: Any) -> str:
    """Return what people call a function, a class, or a `functools.partial` of one, whose arguments belong to its name."""
    if not isinstance(thing, functools.partial):
        return str(getattr(thing, "__name__", type(thing).__name__))
    named = [_spoken(value) for value in thing.args] + [f"{k}={_spoken(value)}" for k, value in thing.keywords.items()]
    return f"{spoken_name(thing.func)}({', '.join(named)})"


def _spoken(value: Any) -> str:
    """Return an argument as it is written, if it is short and plain, else its type: an address would differ each time."""
    written = repr(value) if isinstance(value, str | int | float | bool | tuple | list | None) else ""
    return written if 0 < len(written) <= 40 and " at 0x" not in written else f"<{type(value).__name__}>"


def place_of(thing: Any) -> str | None:
    """Return where another process finds a class or function: `file.py:Name`, or `module:Name` of an installed class.

    Returns:
        The place. `None`: there is none, as of a lambda, of what a function or a notebook made, and of a script that does its
        work when it is imported.
    """
    module = sys.modules.get(str(getattr(thing, "__module__", None)))
    file, name = str(getattr(module, "__file__", None)), str(getattr(thing, "__qualname__", ""))
    if not (isinstance(thing, type | FunctionType) and name.isidentifier() and getattr(module, name, None) is thing):
        return None
    if module is None or not file.endswith(".py") or not Path(file).is_file():
        return None
    if module.__name__ in ("__main__", "__mp_main__"):
        return f"{Path(file).resolve()}:{name}" if _is_guarded(Path(file)) else None
    if not module.__package__ and "site-packages" not in Path(file).parts:
        return f"{Path(file).resolve()}:{name}"
    known = any(Path(file).is_relative_to(folder) for folder in installed_code.searched())
    return f"{module.__name__}:{name}" if known and isinstance(thing, type) else None


def _is_guarded(script: Path) -> bool:
    """Return True if a script does its work below `if __name__ == "__main__":`, so that it can be imported."""
    try:
        body = ast.parse(script.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return False
    return any(isinstance(each, ast.If) and "__name__" in ast.unparse(each.test) for each in body)


def configs() -> dict[str, Traversable]:
    """Return the YAML files of the configs that ship with rlgrad, by name."""
    found = files("rlgrad.configs").iterdir()
    return {Path(f.name).stem: f for f in sorted(found, key=lambda f: f.name) if f.name.endswith(".yaml")}


def config_results() -> dict[str, dict[str, Any]]:
    """Return the results of the configs that ship, by name, without the configs that were not measured.

    Returns:
        `env`, `timesteps`, `seeds`, and `train_return`, `greedy` and `sampled` with `mean`, `low`, `high` each: interquartile
        mean over the seeds and its 95 % bootstrap interval.
    """
    found: dict[str, dict[str, Any]] = json.loads((files("rlgrad.configs") / "results.json").read_text())
    return found


def configs_for(env: str) -> list[str]:
    """Return the names of the configs that ship for an environment and were measured, those with the highest return first."""
    results = config_results()
    known = [name for name in configs() if results.get(name, {}).get("env") == env]
    return sorted(known, key=lambda name: -float(results[name]["greedy"]["mean"]))


def from_file(path: Path, class_name: str) -> Any:
    """Execute a Python file and return its class of this name.

    The module gets a name of its own, so that a file called `queue.py` does not take the place of Python's `queue`. No other
    process can import that name: what cloudpickle sends there, for example to environments in processes, is sent whole.

    Raises:
        ValueError: there is no such file or class; says what was meant.
    """
    import cloudpickle

    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r}.")
    path = path.resolve()  # a run is told where it was
    spec = importlib.util.spec_from_file_location(_module_name(path), path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{str(path)!r} is no Python file.")
    module, before = importlib.util.module_from_spec(spec), sys.modules.pop(spec.name, None)
    # Dataclasses look their module up here while its body still runs.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]  # `import` leaves no half of a module either
        sys.modules |= {} if before is None else {spec.name: before}
        raise
    if not hasattr(module, class_name):
        classes = [n for n, thing in vars(module).items() if isinstance(thing, type)]
        raise ValueError(f"{path} has no class {class_name!r}. {close_names(class_name, classes)}")
    cloudpickle.register_pickle_by_value(module)
    return getattr(module, class_name)


def _module_name(path: Path) -> str:
    """Return a name that no other module has: the same one each time for the same file, so that pickles can be read."""
    stem = re.sub(r"\W", "_", path.stem)  # pickle reads a dot as a package's
    return f"file_{stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"


def split_call(text: str) -> tuple[str, str]:
    """Return the place that a text names, empty for a bare name, and the rest: a name, alone or with arguments.

    A file's folders may have brackets and colons in their names, and so may the arguments.
    """
    file = re.match(r"(.*?\.py):\s*(?=[^\W\d]\w*\s*(?:\(|$))", text, re.DOTALL)
    if file is not None:
        return file[1], text[file.end() :]
    head, bracket, rest = text.partition("(")
    place, _, name = head.rpartition(":")
    return place, f"{name}{bracket}{rest}"


def parse_call(text: str, setting: str, example: str) -> tuple[str, str, dict[str, Any]]:
    """Take apart the text that names a class in a config, such as `"module:Name(size=4)"`.

    Args:
        text: a name, `module:Name` or `file.py:Name`, alone or with keyword arguments that are literals.
        setting: the setting that the text is of, for messages.
        example: of such a text.

    Returns:
        The place, empty where only a name is given; the name; and the arguments.

    Raises:
        ValueError: the text has another form.
    """
    place, written = split_call(text)
    try:
        call = ast.parse(written.strip(), mode="eval").body
        if isinstance(call, ast.Name):
            return place, call.id, {}
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
            return place, call.func.id, {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):  # of a text that is nested too deeply
        pass
    raise ValueError(
        f"{setting}: one is written as a name, or as a name with keyword arguments that are numbers, texts, lists or tuples, "
        f"such as {example!r}; got {text!r}."
    )
