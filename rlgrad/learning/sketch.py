"""Stand-ins for a policy's outputs in a dry run: of the right shapes, and they remember what was asked for."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from rlgrad.core.checks import close_names
from rlgrad.data import Outputs

_OF_ACTION_VALUES = ("q_values", "expected", "q")


class Sketch:
    """The outputs of a policy that is not built yet.

    Args:
        known: names of outputs with one number for each row.
        num_actions: of a Discrete space; 0: actions are of another kind.
        width: numbers that the network says of each action; 0: one.
        agent: its name, for messages.

    Attributes:
        asks_action_values: True once an output was asked that only a network of action values has.
        asked_of_target: names of the outputs that the target weights were asked for.
    """

    def __init__(self, known: Sequence[str], num_actions: int, width: int, agent: str) -> None:
        self.known, self.num_actions, self.width, self._agent = known, num_actions, width, agent
        self.asks_action_values = False
        self.asked_of_target: list[str] = []

    def of(self, batch: Any) -> "SketchedOutputs":
        """Return the outputs at the current weights for a batch of abstract tensors."""
        return SketchedOutputs(self, batch)

    def require_discrete(self) -> None:
        """Raise a ValueError unless the actions are Discrete."""
        if not self.num_actions:
            raise ValueError(
                f"{self._agent} learns a value of each action (it credits q), and the environment's actions are not Discrete: "
                "take an agent that credits log_prob, such as ppo, or wrap the actions."
            )

    def like(self, rows: tf.Tensor, name: str) -> tf.Tensor:
        """Return numbers of the shape of an output, for rows (M,)."""
        each = (self.width,) if self.width else ()
        shape = {"q": each, "q_values": (self.num_actions, *each), "expected": (self.num_actions,)}.get(name, ())
        return tf.reshape(rows, (-1, *[1] * len(shape))) + tf.zeros(shape)


class SketchedOutputs(Outputs):
    """See `Sketch`."""

    def __init__(self, sketch: Sketch, batch: Any) -> None:
        self._sketch, self._rows = sketch, batch.log_probs
        super().__init__(**dict.fromkeys(sketch.known, batch.log_probs))

    @property
    def shapes(self) -> dict[str, tf.Tensor]:
        """Outputs whose shapes are known, by name."""
        found = dict.fromkeys(("log_prob", "entropy", "value"), self._rows)
        return found | ({"q": self._sketch.like(self._rows, "q")} if self._sketch.num_actions else {})

    @property
    def q(self) -> tf.Tensor:
        """What the network says of the actions that were taken."""
        self._sketch.asks_action_values = True
        return self._sketch.like(self._rows, "q")

    def at(self, observations: Any, actions: Any = None) -> Any:
        """Return stand-ins at other observations."""
        return SketchedAnswers(self._sketch, self._rows, actions, [])

    def target(self, observations: Any, actions: Any = None) -> Any:
        """Return stand-ins at the target weights, which note what is read."""
        return SketchedAnswers(self._sketch, self._rows, actions, self._sketch.asked_of_target)

    def noise(self, size: int) -> Any:
        """Return numbers (M, size)."""
        return self._rows[:, None] + tf.zeros((size,))


class SketchedAnswers:
    """See `Outputs.at`."""

    def __init__(self, sketch: Sketch, rows: tf.Tensor, actions: Any, asked: list[str]) -> None:
        self._sketch, self._rows, self._actions, self._asked = sketch, rows, actions, asked

    def __getattr__(self, name: str) -> Any:
        known = (*_OF_ACTION_VALUES, "log_prob", "entropy", "value", *self._sketch.known)
        if name.startswith("_") or name not in known:
            raise AttributeError(f"There is no output {name!r}. {close_names(name, known)}")
        if name in ("q", "log_prob") and self._actions is None:
            raise AttributeError(f"{name} is of actions: pass them, as in now.at(observations, actions).{name}.")
        self._asked.append(name)
        self._sketch.asks_action_values |= name in _OF_ACTION_VALUES
        return self._sketch.like(self._rows, name)
