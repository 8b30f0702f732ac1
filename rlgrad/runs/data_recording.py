"""Record episodes of a policy, or of random actions, in the files that `Replay(data=…)` reads."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlgrad.core import plain_files
from rlgrad.core.plain_files import require_plain
from rlgrad.data import Rollout
from rlgrad.policies.build import make_policy
from rlgrad.replay.recorded import Episodes, fitting, joined, write
from rlgrad.rollouts.base import Collector
from rlgrad.rollouts.explorer import Explorer
from rlgrad.rollouts.factory import make_collector
from rlgrad.runs.checkpoints import write_text
from rlgrad.runs.env_calls import EnvCall, apply
from rlgrad.spaces.descriptions import describe
from rlgrad.spaces.trees import arrays, map_arrays

DESCRIPTION = "data.json"
_SLOTS = 16
_EPISODES = 1_000  # of a file, at most


def record(
    folder: str | Path,
    policy: Any,
    env: Any,
    *,
    episodes: int,
    greedy: bool = False,
    seed: int = 0,
    name: str = "",
    calls: Sequence[EnvCall] = (),
    **options: Any,
) -> Episodes:
    """Play whole episodes, and write them into a folder. Those that it holds already stay: new files come after theirs.

    Args:
        folder: for the files; it is made if there is none.
        policy: acts. `None`: actions are uniformly random.
        env: as for `rlgrad.train`.
        episodes: number of episodes to play.
        greedy: take the most likely action instead of sampling one.
        seed: of the episodes, and of sampled actions.
        name: who acts, for data.json.
        calls: made in every environment before it plays, such as `run.env_calls`.
        options: how the environment is made: `env_kwargs`, `wrappers`, `max_episode_steps`, `collector`, `vectorization_mode`.

    Returns:
        The episodes that were played.

    Raises:
        ValueError: the folder holds episodes of another environment, or other files.
    """
    if episodes < 1:
        raise ValueError(f"episodes is at least 1, got {episodes}.")
    folder, slots = Path(folder), min(episodes, _SLOTS)
    collector = make_collector(env, num_envs=slots, episodes_per_env=1, seed=seed, **options)
    try:
        apply(calls, collector)
        spaces = [describe(collector.observation_space), describe(collector.action_space)]
        before = _description(folder, spaces)
        acting = _random(collector, seed) if policy is None else policy
        parts = list(_played(collector, acting, greedy, episodes))
        played = joined([fitting(part, collector.observation_space, collector.action_space, folder) for part in parts])
    finally:
        collector.close()
    for part in _files(parts):
        write(folder, part)
    entry = {
        "policy": name,
        "greedy": greedy,
        "seed": seed,
        "episodes": episodes,
        "steps": played.steps,
        "mean_return": float(played.returns.mean()),
        "std_return": float(played.returns.std()),
    }
    content = {"env": str(env), "spaces": spaces, "recorded": [*before, entry]}
    write_text(folder / DESCRIPTION, json.dumps(content, indent=2) + "\n")
    return played


def _description(folder: Path, spaces: list[Any]) -> list[Any]:
    """Return what data.json of a folder says of its episodes, after the folder was checked: nothing of a new one."""
    if not folder.exists():
        return []
    require_plain(folder)
    file = folder / DESCRIPTION
    if not file.is_file():
        if any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty, and holds no recorded episodes: choose another folder.")
        return []
    content = plain_files.read_json(file)
    recorded = content.get("recorded") if isinstance(content, dict) else None
    if not isinstance(recorded, list) or content.get("spaces") != json.loads(json.dumps(spaces)):
        raise ValueError(f"{folder} holds recorded episodes of other observations or actions: choose another folder.")
    return recorded


def _random(collector: Collector, seed: int) -> Any:
    """Return a policy whose actions are uniformly random."""
    made = make_policy(collector.observation_space, collector.action_space, hidden_sizes=(1,), value=False, seed=seed)
    return Explorer(made, 1.0)


def _played(collector: Collector, policy: Any, greedy: bool, episodes: int) -> Iterator[Episodes]:
    left = episodes
    while left:
        rollout = collector.collect(policy, greedy)
        collector.drain_episodes()
        columns = min(left, rollout.mask.shape[1])
        yield from (_episode(rollout, column, policy.distribution) for column in range(columns))
        left -= columns


def _episode(rollout: Rollout, column: int, distribution: Any) -> Episodes:
    """Return one column of a rollout of whole episodes."""
    steps = int(rollout.mask[:, column].sum())

    def with_last(seen: Any, after: Any) -> Any:
        return np.concatenate([seen[:steps, column], after[steps - 1 : steps, column]])

    return Episodes(
        observations=map_arrays(with_last, rollout.observations, rollout.final_observations),
        actions=np.asarray(distribution.to_environment(rollout.actions[:steps, column])),
        rewards=np.asarray(rollout.rewards[:steps, column]),
        terminated=np.asarray(rollout.terminations[steps - 1 : steps, column]),
        lengths=np.array([steps], np.int64),
    )


def _files(parts: Sequence[Episodes]) -> Iterator[Episodes]:
    """Yield episodes in parts that are small enough for a file."""
    gathered: list[Episodes] = []
    size = 0
    for part in parts:
        more = sum(array.nbytes for _, array in arrays(tuple(part), ""))
        if gathered and (size + more > plain_files.ROWS // 2 or len(gathered) >= _EPISODES):
            yield joined(gathered)
            gathered, size = [], 0
        gathered, size = [*gathered, part], size + more
    yield joined(gathered)
