"""Options that are a record or something plainer, such as `Replay | None` and `float | Linear`.

Tyro takes the kind that the value has: the options of a record, or the number. A word for the other kind, such as
`--agent.replay None` or `--agent.target.rate 0.1` where the agent has no target, counts as a setting, as in a YAML file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rlgrad.core.schedules import Schedule
from rlgrad.core.settings import alternatives, descriptions, hints, kinds_beside_records, record_type
from rlgrad.hyperparameters import fields

_PREFIX = "--agent."


def with_records(agent: dict[str, Any], cls: Any, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the agent's settings with those that words give for the other kind of a field, and the other words.

    Args:
        agent: settings by name.
        cls: the agent's class.
        words: options with their values.

    Raises:
        ValueError: such a word has no value.
    """
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        path = name.removeprefix(_PREFIX).replace("-", "_").split(".") if name.startswith(_PREFIX) else []
        if not path or not _is_of_the_other_kind(agent, cls, path):
            others.append(word)
            continue
        following = value if equals else next(rest, None)
        if following is None:
            raise ValueError(f"{word} needs a value.")
        _put(agent, path, _value(following))
    return agent, others


def registry() -> Any:
    """Return tyro's rules with one more: a field that may be a record, and is none, takes the plainer kinds alone."""
    from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec

    rules = ConstructorRegistry()

    @rules.struct_rule
    def narrowed(info: Any) -> Any:
        record: Any = info.default
        cls: Any = type(record)
        if not isinstance(info.type, type) or not isinstance(record, info.type) or record_type(cls) is None:
            return None
        declared, values = hints(cls), fields(record)
        schedules = {name: str for name, hint in declared.items() if hint == Schedule}  # no word is a function
        plain = kinds_beside_records(declared, values) | schedules
        if not plain:
            return None
        texts: dict[str, str] = {}
        for base in reversed(cls.__mro__):
            texts |= descriptions(base) if record_type(base) is not None else {}
        options = (
            StructFieldSpec(name, plain.get(name, declared.get(name, Any)), value, texts.get(name))
            for name, value in values.items()
        )
        return StructConstructorSpec(instantiate=cls, fields=tuple(options))

    return rules


def _is_of_the_other_kind(settings: Any, cls: Any, path: Sequence[str]) -> bool:
    """Return True if the path leads to, or into, a field that may be a record and that tyro has no such option for."""
    default: Any = None
    for depth, name in enumerate(path):
        hint = hints(cls).get(name)
        record = record_type(hint)
        if record is None:
            return False
        default = getattr(default, name) if default is not None else cls.__dataclass_fields__[name].default
        settings = settings.get(name, default) if isinstance(settings, Mapping) else default
        is_last, is_record = depth == len(path) - 1, isinstance(settings, Mapping | record)
        if len(alternatives(hint)) > 1 and is_last == is_record:
            return True
        default = default if isinstance(default, record) else None
        cls = record if default is None else type(default)
    return False


def _put(settings: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        inner = settings.get(name)
        settings[name] = dict(inner) if isinstance(inner, Mapping) else {}
        settings = settings[name]
    settings[path[-1]] = value


def _value(word: str) -> Any:
    import yaml

    return None if word == "None" else yaml.safe_load(word)
