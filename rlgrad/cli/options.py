"""The options of `rlgrad train` and `tune`: the fields of `Config` and of the chosen agent, and a few beside them."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from rlgrad.cli import alternatives
from rlgrad.cli.keyword_arguments import apart
from rlgrad.config import Config, agent_class, from_mapping
from rlgrad.core.settings import as_declared, descriptions, hints, mapping
from rlgrad.hyperparameters import fields

TOTAL_TIMESTEPS = 100_000  # on the command line, where neither a config nor an option says how many
_NO_OPTIONS = (
    "agent",  # its fields are options, `--agent.gamma`
    "env",  # the second word
    "from_logits",  # speaks of a model, which the command line cannot take
)
_KWARGS = dict[str, int | float | bool | str]  # what words can hold of `env_kwargs`
_POWER = re.compile(r"^(--[\w.-]+=)?(\d+(?:\.\d+)?[eE]\+?\d{1,2})$")
_TEXTS = ("--run-dir",)
_TYPE = re.compile(r"--agent\.(update(?:\.\w+)*)\.type(?:=(.*))?", re.DOTALL)


@dataclass(kw_only=True)
class Beside:
    """The options that are no fields of `Config`: where a run goes, and short names for two fields of every agent."""

    run_dir: Path | None = None
    """Folder for the run. `None`: a new one under runs/."""
    num_envs: int | None = None
    """Environments side by side. `None`: as many as the agent's own field says."""
    num_steps: int | None = None
    """Steps per environment per rollout. `None`: as many as the agent's own field says."""


@cache
def option_types() -> dict[str, Any]:
    """Return the type of each option that does not depend on the agent, by the name of its field."""
    declared = {name: _typeable(hint) for name, hint in hints(Config).items() if name not in _NO_OPTIONS}
    return {**declared, "env_kwargs": _KWARGS, **hints(Beside)}


def _typeable(hint: Any) -> Any:
    """Return a type without the functions and classes that it takes in Python: no word is one."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    return Union[tuple(kind for kind in get_args(hint) if get_origin(kind) is not Callable)]  # noqa: UP007


def choices(hint: Any) -> list[str]:
    """Return the words that an option of this type takes, none if it takes others."""
    if hint is bool:
        return ["True", "False"]
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    return [word for part in get_args(hint) if get_origin(part) is Literal for word in choices(part)]


def parse(settings: Mapping[str, Any], words: Sequence[str], prog: str) -> tuple[Config, Path | None]:
    """Return the config that settings and command-line words give together, and the folder for the run if they name one.

    The settings give a config, as everywhere; the words then replace its fields. Words that decide which options there are, by
    the type of an update or a record in the place of a number, count as settings.

    Args:
        settings: as a YAML file holds them, `run_dir`, `num_envs` and `num_steps` included. Without `env` the config's is "".
        words: options with their values.
        prog: the command, for help and messages.

    Raises:
        ValueError: a setting is wrong; the message names it.
        SystemExit: a word is wrong, or `--help` was asked for.
    """
    given = {"env": "", "total_timesteps": TOTAL_TIMESTEPS, **settings}
    beside = Beside(
        **as_declared({f.name: given.pop(f.name) for f in dataclasses.fields(Beside) if f.name in given}, Beside)
    )
    given["agent"], words = _with_types(mapping(given.get("agent"), "agent"), list(words))
    if words and isinstance(name := given["agent"].get("name"), str):
        given["agent"], words = alternatives.with_records(given["agent"], agent_class(name), words)
    config = from_mapping(given)
    changes: dict[str, Any] = {"agent": config.agent} | fields(beside)
    if words:
        import tyro

        with alternatives.registry():
            options = tyro.cli(
                _options(config, beside),
                args=_in_digits(_spell_out(apart(words))),
                prog=prog,
                config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
            )
        changes = fields(options)
        changes["env_kwargs"] = {**config.env_kwargs, **changes["env_kwargs"]}
    run_dir = changes.pop("run_dir")
    counts = {name: n for name in ("num_envs", "num_steps") if (n := changes.pop(name)) is not None}
    if counts:
        changes["agent"] = dataclasses.replace(changes["agent"], **counts)
    return dataclasses.replace(config, **changes) if words or counts else config, run_dir


def _options(config: Config, beside: Beside) -> Any:
    """Return a dataclass whose fields are the options, with the values of `config` and `beside` as defaults."""
    import tyro

    texts = {**descriptions(Config), **descriptions(Beside)}
    made: list[Any] = []
    for name, hint in option_types().items():
        # The config's own keyword arguments stay: they may be lists, which no word holds.
        value = {} if name == "env_kwargs" else getattr(beside if hasattr(beside, name) else config, name)
        text = texts.get(name, "") + (" The option alone means True." if hint is bool else "")
        made.append((name, Annotated[hint, tyro.conf.arg(help=text)], field(default_factory=partial(_same, value))))
    made.append(("agent", type(config.agent), field(default=config.agent)))
    return dataclasses.make_dataclass("Options", made, kw_only=True)


def _same(value: Any) -> Any:
    return value


def _with_types(agent: dict[str, Any], words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the agent's settings with the types of updates that words name, and the other words.

    `--agent.update.policy.type trust_region` sets `type` there. The other settings of an update stay only if they are not said
    to be of another type.
    """
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        option = _TYPE.fullmatch(word)
        if option is None:
            others.append(word)
            continue
        name = option[2] if option[2] is not None else next(rest, None)
        if name is None:
            raise ValueError(f"{word} needs a value.")
        inner = agent
        for key in option[1].split("."):
            inner[key] = mapping(inner.get(key, {}), f"agent.{option[1]}")
            inner = inner[key]
        if inner.get("type", name) != name:
            inner.clear()
        inner["type"] = name
    return agent, others


def _in_digits(words: Sequence[str]) -> list[str]:
    """Return the words with whole numbers such as 1e5 and 2.5e4 written out. Names of folders stay as they are."""
    written: list[str] = []
    for before, word in pairwise(["", *words]):
        found = _POWER.match(word)
        name = (found[1] or before) if found else ""
        whole = found is not None and float(found[2]).is_integer() and name.rstrip("=") not in _TEXTS
        written.append(f"{found[1] or ''}{int(float(found[2]))}" if found and whole else word)
    return written


def _spell_out(words: Sequence[str]) -> list[str]:
    """Return the words with `True` after each of Config's flags that stands alone."""
    flags = {f"--{name.replace('_', '-')}" for name, hint in option_types().items() if hint is bool}
    spelled: list[str] = []
    for word, following in pairwise([*words, "--"]):
        spelled += [word, "True"] if word in flags and following.startswith("-") else [word]
    return spelled
