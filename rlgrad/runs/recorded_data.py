"""The recorded episodes that a run learns from: found, checked against its environment, and against what it began with."""

import dataclasses
from pathlib import Path
from typing import Any

import tensorflow as tf

from rlgrad.agent import Agent
from rlgrad.learning.learner import Learner
from rlgrad.learning.recorded_rollouts import rollouts
from rlgrad.replay import minari_data, recorded
from rlgrad.replay.recorded import Episodes
from rlgrad.replay.records import Replay
from rlgrad.rollouts.base import Collector


def load_data(replay: Replay, collector: Collector) -> tuple[Episodes, Replay]:
    """Return the episodes that a replay names, and the replay with the whole path of their folder and their digest.

    Args:
        replay: has data.
        collector: of the environment that they are to be of.

    Raises:
        ValueError: they are not there, are of other spaces, or are others than the run began with; says what to do.
    """
    assert replay.data is not None
    folder = Path(replay.data).expanduser()
    read = recorded.read if folder.is_dir() else minari_data.read
    source: Any = folder if folder.is_dir() else replay.data
    episodes = read(source, collector.observation_space, collector.action_space)
    found = recorded.digest(episodes)
    if replay.data_digest not in (None, found):
        raise ValueError(
            f"The recorded episodes of {replay.data} are not those that this run began with (SHA-256 {found[:16]}…, and its "
            f"config says {str(replay.data_digest)[:16]}…): bring those back, or begin a new run."
        )
    place = str(folder.resolve()) if folder.is_dir() else replay.data
    return episodes, dataclasses.replace(replay, data=place, data_digest=found)


def require_possible_data(agent: Agent) -> None:
    """Raise a ValueError for an agent that learns from recorded episodes alone, and has none."""
    if agent.needs_data and (agent.replay is None or agent.replay.data is None):
        raise ValueError(
            f"{type(agent).__name__} learns from recorded episodes: name a folder of them or a Minari dataset, as replay.data "
            "(command line: --agent.replay.data FOLDER). rlgrad record-data records some."
        )


def begin_with(learner: Learner, episodes: Episodes) -> None:
    """Fill the replay of a run that begins, and let the normalizer of its policy see all observations, once."""
    learner.rehearsal.fill(episodes, learner.policy)  # type: ignore[union-attr]
    for rollout in rollouts(episodes, learner.policy):
        tensors = rollout._replace(observations=tf.nest.map_structure(tf.convert_to_tensor, rollout.observations))
        learner.policy.normalize(learner.policy.inputs(tensors), tf.reshape(rollout.mask, (-1,)))
