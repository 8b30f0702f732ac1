"""Weights to begin with: those of another run, as far as they fit."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlgrad.policies.policy import Policy
from rlgrad.runs import checkpoints
from rlgrad.runs.alone import load_policy
from rlgrad.runs.locking import describe_no_run

_log = logging.getLogger("rlgrad")
_SAID = 4  # variables that a message names


def take_weights(policy: Policy, source: str) -> list[str]:
    """Give a policy the weights of another run, and log what fits and what does not: a warning if not everything does.

    A variable fits one of the same path and shape; where both policies have the same shapes in the same order, all fit, however
    they are called. The optimizer, the counters and the replay begin anew; the normalizer of observations is taken too.

    Args:
        policy: that is about to be trained.
        source: a run's folder, for its newest checkpoint; or a checkpoint file in it.

    Returns:
        The paths of the variables that keep their own first values.

    Raises:
        ValueError: there is no such run, or nothing of it fits; says why.
    """
    theirs = _policy_of(Path(source))
    mine = list(policy.variables)
    pairs = _pairs(mine, list(theirs.variables))
    if not pairs:
        raise ValueError(
            f"init_from: nothing of {source} fits. Its variables: {_named(theirs.variables)}. This run's: {_named(mine)}."
        )
    for variable, value in pairs:
        variable.assign(value)
    taken = {id(variable) for variable, _ in pairs}
    left = [variable for variable in mine if id(variable) not in taken]
    if left:
        _log.warning(
            "Weights of %s: %d of this run's %d variables were taken. Without a counterpart there: %s. Not taken: %s.",
            source,
            len(pairs),
            len(mine),
            _named(left),
            _named(_others(theirs.variables, [v for v, _ in pairs])) or "none",
        )
    else:
        _log.info("All %d variables begin with the weights of %s.", len(mine), source)
    return [variable.path for variable in left]


def _policy_of(source: Path) -> Policy:
    folder = source.parents[1] if source.suffix == ".npz" and len(source.parents) > 1 else source
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"init_from: {describe_no_run(folder)}")
    policy = load_policy(folder)
    if policy is None:
        raise ValueError(
            f"init_from: {folder} does not say what its policy observes and does, as runs of before spaces.json: load it with "
            "rlgrad.load in Python, and pass its network as model=."
        )
    if folder != source:
        if not source.is_file():
            raise ValueError(f"init_from: there is no checkpoint {str(source)!r}.")
        checkpoints.load(source, {"policy": policy.variables})
    return policy


def _pairs(mine: Sequence[Any], theirs: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return the variables that fit, each with its value there."""
    if [_kind(v) for v in mine] == [_kind(v) for v in theirs]:
        return [(v, there.numpy()) for v, there in zip(mine, theirs, strict=True)]
    known = {(v.path, *_kind(v)): v for v in theirs}
    return [(v, known[v.path, *_kind(v)].numpy()) for v in mine if (v.path, *_kind(v)) in known]


def _kind(variable: Any) -> tuple[Any, ...]:
    return tuple(variable.shape), str(variable.dtype)


def _others(variables: Sequence[Any], taken: Sequence[Any]) -> list[Any]:
    paths = {variable.path for variable in taken}
    return [variable for variable in variables if variable.path not in paths]


def _named(variables: Sequence[Any]) -> str:
    shown = [f"{v.path} {tuple(v.shape)}" for v in list(variables)[:_SAID]]
    return ", ".join([*shown, *([f"and {len(variables) - _SAID} more"] if len(variables) > _SAID else [])])
