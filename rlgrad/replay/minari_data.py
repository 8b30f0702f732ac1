"""Datasets of Minari, as recorded episodes. Minari is imported only when one is asked for, and nothing is downloaded."""

from typing import Any

import numpy as np
from gymnasium import Space

from rlgrad.replay.recorded import Episodes, fitting, joined
from rlgrad.spaces.trees import map_arrays


def read(name: str, observation_space: Space[Any], action_space: Space[Any]) -> Episodes:
    """Read a dataset that is on this machine.

    Args:
        name: its id, such as `"D4RL/door/human-v2"`.
        observation_space: of the environment that its episodes are to be of.
        action_space: likewise.

    Raises:
        ValueError: Minari or the dataset is not there, or its episodes are of other spaces; says what to do.
    """
    try:
        import minari
    except ImportError as error:
        raise ValueError(
            f"There is no folder {name!r}, and for a dataset of that id Minari is missing: pip install 'rlgrad[minari]'."
        ) from error
    try:
        dataset = minari.load_dataset(name)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"There is no folder {name!r}, and no Minari dataset of that id on this machine. `minari list remote` shows those "
            f"that there are, and `minari download {name}` fetches one."
        ) from error
    parts = [_episodes(each) for each in dataset.iterate_episodes()]
    if not parts:
        raise ValueError(f"The Minari dataset {name!r} has no episodes.")
    return joined(
        [fitting(part, observation_space, action_space, f"{name}, episode {i}") for i, part in enumerate(parts)]
    )


def _episodes(data: Any) -> Episodes:
    """Return an episode of Minari. It was cut unless its last step says that the task ended."""
    return Episodes(
        map_arrays(np.asarray, data.observations),
        np.asarray(data.actions),
        np.asarray(data.rewards),
        np.asarray(data.terminations, np.bool_)[-1:],
        np.array([len(data.rewards)]),
    )
