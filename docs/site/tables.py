"""The tables of the pages about configs and their fields, from the code and the results.

`python docs/site/tables.py` writes them anew; a test compares them.
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from rlgrad import Agent
from rlgrad.cli import options
from rlgrad.config import Config, agent_class, update_class
from rlgrad.core import registry
from rlgrad.core.schedules import Schedule
from rlgrad.core.settings import descriptions, hints
from rlgrad.hyperparameters import Record, fields
from rlgrad.policies import CriticNetwork
from rlgrad.replay import Exploration, Linear, Replay, Target
from rlgrad.updates import Update

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("shipped-configs", "run-settings", "agent-settings", "update-settings")
PAGES = [ROOT / "docs" / f"{name}.md" for name in NAMES]
UPDATES = "update-settings.md"  # where the fields of updates, of records and of schedules stand
WORDS = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "`true` or `false`",
    Path: "folder",
    NoneType: "`null`",
    Any: "string, mapping",
    Schedule: f"[schedule]({UPDATES}#schedules)",
}
RECORDS = {"replay": Replay, "target": Target, "exploration": Exploration, "critic": CriticNetwork, "linear": Linear}
"""Records inside an agent besides its update, by the names of their tables."""
RUN = {
    "length": ("total_timesteps", "seed", "run_dir", "init_from", "stop_at_return", "patience", "time_budget"),
    "environments": (
        *("env_kwargs", "wrappers", "max_episode_steps", "num_envs", "num_steps", "encoders"),
        *("vectorization_mode", "step_timeout", "collector"),
    ),
    "networks": (
        *("hidden_sizes", "activation", "layer_norm", "fixed_layer_norm", "sparsity", "shared_trunk"),
        *("memory", "memory_size", "squash_actions", "initial_log_std", "state_dependent_std"),
        "state_dependent_noise",
    ),
    "evaluation": ("evaluation_episodes", "evaluation_interval", "diagnose"),
    "logs": ("logs", "log_info", "histograms", "videos"),
    "workers": ("workers", "ray_address", "worker_timeout", "asynchronous", "max_lag", "learners"),
}
"""The fields of a run, by the names of their tables."""
ENVIRONMENTS = (
    *("CartPole-v1", "rlgrad/CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1", "LunarLander-v3", "Taxi-v4"),
    *("InvertedPendulum-v5", "Hopper-v5", "HalfCheetah-v5", "rlgrad/Breakout-v1"),
)
"""The order of the sections of shipped configs; others come after them."""
EXTRAS = {
    "LunarLander-v3": "box2d",
    "InvertedPendulum-v5": "mujoco",
    "Hopper-v5": "mujoco",
    "HalfCheetah-v5": "mujoco",
}


@cache
def tables() -> dict[str, str]:
    """Each generated table by the name that its marks have."""
    agents = {name: agent_class(name) for name, point in registry.agents().items() if _ships(point.value)}
    common = _rows(Agent)
    own = {name: {f: t for f, t in _rows(cls).items() if common.get(f) != t} for name, cls in agents.items()}
    made = {"configs": _configs(), "agent": _table(common.values())}
    made |= {f"run-{topic}": table for topic, table in _run().items()}
    made |= {f"agent-{name}": _table(rows.values()) for name, rows in sorted(own.items())}
    made |= {f"record-{name}": _table(_rows(cls).values()) for name, cls in RECORDS.items()}
    return made | {f"update-{name}": _table(_rows(cls).values()) for name, cls in _updates().items()}


def _updates() -> dict[str, type[Update]]:
    points = registry.installed("rlgrad.updates")
    return {name: update_class(name) for name, point in points.items() if point.value.startswith("rlgrad.updates.")}


def written(page: str) -> str:
    """The page with its tables as they are now."""
    for name in named(page):
        before, begin, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        page = f"{before}{begin}\n{tables()[name]}\n{end}{after}"
    return page


def named(page: str) -> list[str]:
    """The names of the tables that a page has a place for."""
    return [name for name in tables() if f"<!-- {name} -->\n" in page and f"<!-- end of {name} -->" in page]


def _ships(place: str) -> bool:
    return place.startswith("rlgrad.agents.")


def _configs() -> str:
    """A section for each environment, with a table of its configs."""
    reached = _reached((ROOT / "benchmarks" / "results" / "learning.md").read_text())
    rows = defaultdict(list)
    for name, file in sorted(registry.configs().items()):
        text = file.read_text()
        settings = yaml.safe_load(text)
        _, _, about = text.splitlines()[0].partition(" with ")
        agent = f"[{settings['agent']['name']}](agents/{settings['agent']['name']}.md)"
        steps = f"{settings['total_timesteps']:,}"
        rows[settings["env"]].append(f"| `{name}` | {agent} | {steps} | {reached.get(name, '–')} | {about} |")
    ordered = sorted(rows, key=lambda env: (ENVIRONMENTS.index(env) if env in ENVIRONMENTS else len(ENVIRONMENTS), env))
    return "\n".join(f"## {env}\n\n{_needs(env)}{_of_environment(rows[env])}" for env in ordered)


def _of_environment(rows: Iterable[str]) -> str:
    heads = "| config | agent | steps | greedy return (worst seed), seeds | what it is |\n|---|---|---|---|---|\n"
    return heads + "\n".join(rows) + "\n"


def _needs(env: str) -> str:
    """Say what has to be installed besides."""
    if env.startswith("ale_py:"):
        return "`pip install 'ale-py[vector]'`\n\n"
    return f"`pip install 'rlgrad[{EXTRAS[env]}]'`\n\n" if env in EXTRAS else ""


def _reached(results: str) -> dict[str, str]:
    """By config: the greedy return's interquartile mean, its worst seed and the number of seeds."""
    rows = re.findall(
        r"^\| \*\*[\w-]+\*\* `([\w-]+)` \| [^|]+ \| (\S+) \[[^]]+\] (\(\S+\)) \| [^|]+ \| (\d+) \|", results, re.M
    )
    return {name: f"{mean} {worst}, {seeds}" for name, mean, worst, seeds in rows}


def _run() -> dict[str, str]:
    """By topic, the fields of a config that are options, and the options beside them."""
    rows = _rows(Config) | _rows(options.Beside)
    listed = [name for names in RUN.values() for name in names]
    if sorted(listed) != sorted(options.option_types()):
        missing = {*options.option_types()} ^ {*listed}
        raise ValueError(
            f"Each field of a run stands under one topic of RUN in tables.py: {', '.join(sorted(missing))}."
        )
    return {topic: _table(rows[name] for name in names) for topic, names in RUN.items()}


def _rows(cls: type[Any]) -> dict[str, str]:
    """Return a line for each field: its name, what it takes, its default, and the string below it."""
    kinds, about = hints(cls) | (options.option_types() if cls is Config else {}), {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("rlgrad") and dataclasses.is_dataclass(base):
            about |= descriptions(base)
    lines = {}
    for f in (f for f in dataclasses.fields(cls) if f.name in kinds):
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        default = options.TOTAL_TIMESTEPS if f.name == "total_timesteps" else default
        text = " ".join(about.get(f.name, "").split()).replace("|", "\\|")
        for python, yaml_word in (("`None`", "`null`"), ("`True`", "`true`"), ("`False`", "`false`")):
            text = text.replace(python, yaml_word)
        lines[f.name] = f"| `{f.name}` | {_takes(kinds[f.name])} | `{_plain(default)}` | {text} |"
    return lines


def _table(rows: Iterable[str]) -> str:
    return "\n".join(["| field | takes | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _takes(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    records = {cls: f"[{name}]({UPDATES}#{name})" for name, cls in RECORDS.items()}
    if named := WORDS.get(hint) or records.get(hint):
        return named
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if isinstance(hint, type) and issubclass(hint, Update):
        return "an update"
    if origin in (Union, UnionType):
        return ", ".join(_takes(kind) for kind in inner)
    if origin is tuple:
        return f"list: {_takes(inner[0])}" if inner[-1] is Ellipsis else f"list of {len(inner)}: {_takes(inner[0])}s"
    assert origin in (dict, Mapping), hint
    return "mapping"


def _plain(value: Any) -> str:
    if isinstance(value, Record):
        named = [f"type: {registry.name_of('rlgrad.updates', type(value))}"] if isinstance(value, Update) else []
        changed = {f: v for f, v in fields(value).items() if v != fields(type(value)()).get(f)}
        return ", ".join([*named, *(f"{f}: {_plain(v)}" for f, v in changed.items())]).join("{}")
    return yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True).split("\n")[0]


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(written(page.read_text()))
