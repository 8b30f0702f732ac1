"""A config as text: config.yaml."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlgrad.config.names import UPDATES, agent_name
from rlgrad.core import registry, schedules
from rlgrad.hyperparameters import Record, fields

NOTES = ("resolved", "changed")
"""Keys of config.yaml that are no settings: choices made by rules, and what a run was continued with."""


def to_yaml(config: Any, notes: Mapping[str, Any]) -> str:
    """Return the config as YAML.

    Args:
        config: a `Config`.
        notes: for people, by name; `from_mapping` leaves those of `NOTES` out.
    """
    import yaml

    objects = ("agent", "env", "collector")
    written = {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config) if f.name not in objects}
    written["agent"] = {"name": agent_name(config.agent)} | _plain(config.agent)
    env = config.env if isinstance(config.env, str) else registry.place_of(config.env)
    written["env"] = f"({config.env_name}, given as an object)" if env is None else _place(env)
    written["collector"] = _collector_name(config.collector)
    if config.from_logits:  # differs only with a model, which no config.yaml holds
        del written["from_logits"]
    if not config.encoders:
        del written["encoders"]
    if config.workers is None:
        for name in ("workers", "asynchronous", "max_lag"):
            del written[name]
    if config.learners == 1:
        del written["learners"]
    if not config.uses_ray:
        for name in ("ray_address", "worker_timeout"):
            del written[name]
    if config.init_from is not None:
        written["init_from"] = str(Path(config.init_from).resolve())
    written["logs"] = [_place(log) for log in config.logs]
    order = [f.name for f in dataclasses.fields(config) if f.name in written]
    return yaml.safe_dump({name: written[name] for name in order} | dict(notes), sort_keys=False)


def _place(text: str) -> str:
    """Return a text with the whole path of its file, if it is `file.py:Name` or `file.py:Name(…)`, and otherwise as it is."""
    if ".py" not in text:
        return text
    file, rest = registry.split_call(text)
    return f"{Path(file).resolve()}:{rest}" if file.endswith(".py") else text


def _plain(value: Any) -> Any:
    """Return a value as YAML holds it: records and mappings as dicts, Keras optimizers as their configs, tuples as lists."""
    if isinstance(value, Record):
        from rlgrad.updates import Update

        kind = {"type": registry.name_of(UPDATES, type(value))} if isinstance(value, Update) else {}
        return kind | {name: _plain(v) for name, v in fields(value).items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, str) or (callable(value) and not hasattr(value, "get_config")):
        return _place(value if isinstance(value, str) else schedules.written(value))
    if hasattr(value, "get_config"):
        import keras

        return keras.optimizers.serialize(value)
    return value


def _collector_name(collector: str | Callable[..., Any]) -> str:
    """Return the name by which a collector is found again."""
    return _place(collector) if isinstance(collector, str) else registry.name_of("rlgrad.collectors", collector)
