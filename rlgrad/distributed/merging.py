"""The play of several workers, as one collector would have played it: rollouts, episodes and states side by side by slot."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlgrad.data import Episode, Rollout
from rlgrad.distributed.worker import Played
from rlgrad.environments.infos import Sums
from rlgrad.rollouts.blocks import Block
from rlgrad.rollouts.tape import lengthened
from rlgrad.spaces.trees import map_arrays

Array = np.ndarray[Any, Any]


def merge_rollouts(rollouts: Sequence[Rollout]) -> Rollout:
    """Return one rollout with the columns of all. Those of whole episodes are padded to the rows of the longest."""
    rows = max(len(rollout.mask) for rollout in rollouts)
    merged = {}
    for name in Rollout._fields:
        parts = [getattr(rollout, name) for rollout in rollouts]
        if name == "initial_states":
            merged[name] = map_arrays(lambda *xs: np.concatenate(xs), *parts)
        elif parts[0] is not None:
            merged[name] = map_arrays(lambda *xs: np.concatenate(lengthened(xs, rows), axis=1), *parts)
    return Rollout(**merged)


def merge_episodes(played: Sequence[Played], blocks: Sequence[Block], *, by_steps: bool) -> list[Episode]:
    """Return the episodes of all workers: by time and then by slot, or by column if columns are episodes."""
    if not by_steps:
        return [episode for each in played for episode in each.episodes]
    ordered: list[tuple[int, int, Episode]] = []
    for each, block in zip(played, blocks, strict=True):
        rollout = each.rollout
        assert rollout is not None
        ends = np.argwhere(rollout.terminations | rollout.truncations).tolist()
        ordered += [(row, block.first + slot, found) for (row, slot), found in zip(ends, each.episodes, strict=True)]
    return [episode for *_, episode in sorted(ordered, key=lambda end: end[:2])]


def merge_sums(sums: Sequence[Sums]) -> Sums:
    """Return the sums of all, added in the order of the slots."""
    merged: Sums = {}
    for each in sums:
        for name, (total, count) in each.items():
            before, counted = merged.get(name, (0.0, 0))
            merged[name] = before + total, counted + count
    return merged


def merge_states(states: Sequence[Mapping[str, Any]], actions: Array | None) -> dict[str, Any]:
    """Return the state that one collector of all slots would have.

    Args:
        states: of the workers, in the order of their slots, without the actions of running episodes.
        actions: of these, (rows, N, …), as many rows as the longest of them has; `None`: no episode runs.
    """
    draws = [state["actions"] for state in states]
    running = [state["running"] for state in states]
    merged = None
    if actions is not None:
        merged = {
            "observations": _side_by_side([each["observations"] for each in running]),
            "memories": _side_by_side([each["memories"] for each in running]),
            **{
                name: np.concatenate([each[name] for each in running])
                for name in ("returns", "lengths", "resets_first")
            },
            "actions": actions,
        }
    return {
        "actions": {"begun": draws[0]["begun"], "slots": [numbers for draw in draws for numbers in draw["slots"]]},
        "episodes": [number for state in states for number in state["episodes"]],
        "restarts": 0,
        "running": merged,
    }


def split_state(state: Mapping[str, Any], block: Block) -> dict[str, Any]:
    """Return the part of a collector's state that belongs to some of its slots.

    Raises:
        ValueError: it is of an older version, whose slots had no random numbers of their own.
    """
    if "slots" not in state["actions"]:
        raise ValueError(
            "This run was begun by an older version of rlgrad, whose slots shared one stream of random numbers: it continues "
            "in one process alone. Resume it without workers."
        )
    own = slice(block.first, block.first + block.count)
    running = state["running"]
    if running is not None:
        lengths = running["lengths"][own]
        rows = int(lengths.max(initial=0))
        running = {
            "observations": [array[own] for array in running["observations"]],
            "memories": [array[own] for array in running["memories"]],
            **{name: running[name][own] for name in ("returns", "lengths", "resets_first")},
            "actions": running["actions"][len(running["actions"]) - rows :, own],
        }
    draws = {"begun": state["actions"]["begun"], "slots": state["actions"]["slots"][own]}
    return {"actions": draws, "episodes": state["episodes"][own], "restarts": 0, "running": running}


def _side_by_side(parts: Sequence[Sequence[Array]]) -> list[Array]:
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
