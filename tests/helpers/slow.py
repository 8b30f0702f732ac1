"""Parameters of which a few run by default, and all of them with `-m "slow or not slow"`."""

import pytest


def parameters(values, quick=1, *, several=False):
    """Parameters of a test or a fixture, all marked `slow` but the quick ones.

    Args:
        values: a value for each parameter, or a dictionary of them by id.
        quick: which ones run by default: the first so many, or a list of values, or of ids where `values` is a dictionary.
        several: each value is a tuple of one for each of several arguments.
    """
    ids = list(values) if isinstance(values, dict) else None
    values = list(values.values()) if isinstance(values, dict) else list(values)
    keys = ids or values
    chosen = keys[:quick] if isinstance(quick, int) else quick
    assert chosen, "one at least runs by default"
    assert all(key in keys for key in chosen), f"{chosen} of {keys}"
    return [
        pytest.param(
            *(value if several else (value,)), id=id, marks=() if (id or value) in chosen else pytest.mark.slow
        )
        for id, value in zip(ids or [None] * len(values), values, strict=True)
    ]


def mostly_slow(names, values, quick=1, **options):
    """Parametrize a test as `pytest.mark.parametrize` does, and mark all but the quick parameters `slow`."""
    return pytest.mark.parametrize(names, parameters(values, quick, several="," in names), **options)
