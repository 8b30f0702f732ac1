"""The parts of a config that another person's config may not have by itself: code that is not installed, and loaded arguments.

Free of these, a config names agents, updates, collectors, encoders and environments of installed distributions, wrappers that
they bring, and logs that write into the run's folder; and passes plain data that neither names a file nor is huge.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlgrad.core import installed_code, plain_files, registry

_LOCAL_LOGS = ("csv", "jsonl", "tensorboard")
_TEXT = re.compile(r"(\w[\w .,+-]*)?")  # no separator of folders, no colon of a module or an address
_LARGEST = 100_000
_COUNTS = ("max_episode_steps", "max_num_frames_per_episode")  # of steps, which take time alone
# Arguments of Gymnasium's wrappers that are texts and name no file.
_WRAPPER_TEXTS = {
    ("FilterObservation", "filter_keys"),
    ("AddRenderObservation", "render_key"),
    ("AddRenderObservation", "obs_key"),
    ("DtypeObservation", "dtype"),
    ("RecordEpisodeStatistics", "stats_key"),
}


@dataclass(frozen=True)
class Permission:
    """A part of a config that its reader has to permit.

    Attributes:
        setting: the setting that asks for it.
        text: as it stands there.
        act: what would happen, as the end of the sentence "The config would …".
        later: True if it happens when training starts, and not when the run is loaded.
    """

    setting: str
    text: str
    act: str
    later: bool = False

    def __str__(self) -> str:
        """Return the end of a sentence, which is also how it is recorded."""
        return f"{self.act} ({self.setting}: {self.text})"


def permissions(folder: Path, content: Mapping[str, Any]) -> list[Permission]:
    """Return the permissions that a config needs.

    Nothing is imported and no file of code is opened, except those in the folder, to tell one content from another.

    Args:
        folder: that the config came with.
        content: of the config.

    Raises:
        ValueError: a text has not the form that its setting takes.
    """
    return [*_of_code(folder, content), *_of_logs(folder, content), *_of_data(content)]


def _of_code(folder: Path, content: Mapping[str, Any]) -> Iterator[Permission]:
    agent = content.get("agent")
    for name in [agent.get("name")] if isinstance(agent, Mapping) else []:
        yield from _code(folder, "agent", "rlgrad.agents", name)
    for text in (
        _texts(agent) if isinstance(agent, Mapping) else []
    ):  # a schedule among them may be a function in a file
        place, written = registry.split_call(text)
        if place and not text.startswith("("):
            yield from _code(folder, "agent", "", f"{place}:{written.partition('(')[0]}")
    for name in _types(agent) if isinstance(agent, Mapping) else []:
        yield from _code(folder, "type", "rlgrad.updates", name)
    if content.get("collector") != "auto":
        yield from _code(folder, "collector", "rlgrad.collectors", content.get("collector"))
    for name in _listed(content.get("encoders")):
        yield from _code(folder, "encoders", "rlgrad.encoders", name)
    env = content.get("env")
    yield from _code(folder, "env", "rlgrad.envs", env)
    for text in _listed(content.get("wrappers")):
        place, written = registry.split_call(text) if isinstance(text, str) else ("", "")
        yield from _code(folder, "wrappers", "", f"{place}:{written}" if place else None)


def _code(folder: Path, setting: str, group: str, name: Any) -> Iterator[Permission]:
    """Yield the permission to execute what a name leads to, unless it is installed."""
    if not isinstance(name, str) or name.startswith("("):  # an object that was passed in Python
        return
    place = registry.split_call(name)[0] if setting == "wrappers" else registry.split(name)[0]
    if not place:
        point = registry.installed(group).get(name)
        if point is not None and not installed_code.is_installed(point):
            yield Permission(setting, name, f"execute {point.value}, which is not installed")
    elif place.endswith(".py"):
        yield Permission(setting, name, f"execute the file {_described(folder, Path(place))}")
    elif installed_code.distribution_of(place, folder) is None:
        file = installed_code.file_of(place)
        where = "" if file is None else f" from {_described(folder, Path(file))}"
        yield Permission(
            setting, name, f"import the module {place}{where}, which no installed package for rlgrad brings"
        )


def _described(folder: Path, file: Path) -> str:
    """Return a file's whole path. One in the folder has its content with it: another content needs another permission."""
    whole = file.resolve()
    if not whole.is_relative_to(folder.resolve()) or not whole.is_file():
        return str(whole)
    content = plain_files.read_bytes(whole, plain_files.DOCUMENT)
    return f"{whole}, which came with it, SHA-256 {hashlib.sha256(content).hexdigest()[:16]}"


def _types(settings: Mapping[str, Any]) -> list[Any]:
    """Return the updates that settings name, at any depth: each `type:`."""
    inner = [value for value in settings.values() if isinstance(value, Mapping)]
    return [settings.get("type"), *(name for each in inner for name in _types(each))]


def _texts(settings: Mapping[str, Any]) -> list[str]:
    """Return the texts in settings, at any depth, but for those of `name` and `type`."""
    found = [value for key, value in settings.items() if isinstance(value, str) and key not in ("name", "type")]
    inner = [value for value in settings.values() if isinstance(value, Mapping)]
    return [*found, *(text for each in inner for text in _texts(each))]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _of_logs(folder: Path, content: Mapping[str, Any]) -> Iterator[Permission]:
    for text in _listed(content.get("logs")):
        if not isinstance(text, str) or text in _LOCAL_LOGS:
            continue
        place, name, options = registry.parse_call(text, "logs", "my_logs.py:MyLog(level=1)")
        asked = list(_code(folder, "logs", "rlgrad.logs", f"{place}:{name}" if place else name))
        yield from asked
        if not asked and (place or options or name in registry.installed("rlgrad.logs")):
            yield Permission("logs", text, "hand its rows to a log that may send them elsewhere", later=True)


def _of_data(content: Mapping[str, Any]) -> Iterator[Permission]:
    for name, value in _pairs(content.get("env_kwargs")):
        if not _is_harmless(name, value, texts=True):
            yield Permission("env_kwargs", f"{name}={_short(value)}", "pass a path or a huge number to the environment")
    for text in _listed(content.get("wrappers")):
        if not isinstance(text, str):
            continue
        _, wrapper, options = registry.parse_call(text, "wrappers", "FrameStackObservation(stack_size=4)")
        for name, value in options.items():
            if not _is_harmless(name, value, texts=(wrapper, name) in _WRAPPER_TEXTS):
                yield Permission("wrappers", text, "pass a text or a huge number to a wrapper, which may write a file")


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []


def _is_harmless(name: Any, value: Any, texts: bool) -> bool:
    """Return True for plain data without paths and without numbers that a size could come from which fills the memory."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_harmless(key, inner, texts) for key, inner in value.items())
    if isinstance(value, list | tuple | set):
        return all(_is_harmless(name, inner, texts) for inner in value)
    if isinstance(value, str):
        return texts and _TEXT.fullmatch(value) is not None
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= _LARGEST or name in _COUNTS
    return value is None or isinstance(value, bool | float)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
