"""`--env-kwargs`: keyword arguments as words of a command line, `name value` as well as `name=value`."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

_POWER = re.compile(r"[+-]?[\d.]*\d[\d.]*[eE][+-]?\d+")  # YAML 1.1 takes 1e-3 for a text

OPTION = "--env-kwargs"
HELP = "keyword arguments of the environment's constructor, such as g=9.8"


def keyword_arguments(words: Sequence[str], option: str = OPTION) -> dict[str, Any]:
    """Return the keyword arguments that words hold; a value is read as YAML, so that `[1, 2]` is a list.

    Args:
        words: after the option.
        option: for messages.

    Raises:
        ValueError: a name is none, or has no value.
    """
    import yaml

    read: dict[str, Any] = {}
    for name, value in _pairs(words):
        if not name.isidentifier() or value is None:
            raise ValueError(
                f"{option} takes name value, or name=value: got {name!r}{' alone' if value is None else ''}."
            )
        try:
            read[name] = float(value) if _POWER.fullmatch(value) else yaml.safe_load(value)
        except yaml.YAMLError:
            read[name] = value  # a text with a bracket or a colon in it
    return read


def apart(words: Sequence[str]) -> list[str]:
    """Return the words of a command with each `name=value` after `--env-kwargs` as two words."""
    if OPTION not in words:
        return list(words)
    begin = words.index(OPTION) + 1
    end = next((at for at in range(begin, len(words)) if words[at].startswith("--")), len(words))
    pairs = [[name] if value is None else [name, value] for name, value in _pairs(words[begin:end])]
    return [*words[:begin], *(word for pair in pairs for word in pair), *words[end:]]


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield names and values; the value of a name that is the last word is `None`."""
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        yield (name, value) if equals and name.isidentifier() else (word, next(rest, None))
