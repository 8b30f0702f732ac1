"""Stand-ins for a policy's outputs in a dry run: of the right shapes, and they remember what was asked for."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from rlgrad.agent import Agent
from rlgrad.core.checks import close_names
from rlgrad.data import Outputs

_OF_ACTION_VALUES = ("q_values", "expected")
_OF_ACTIONS = ("q", "log_prob")
ON_DEMAND = ("q", "action", "action_log_prob", "logits")
"""Outputs that a policy has if its agent asks for them."""


class Sketch:
    """The outputs of a policy that is not built yet.

    Args:
        known: names of outputs with one number for each row.
        agent: says what the networks are to say.
        num_actions: of a Discrete space; 0: actions are of another kind.
        event: shape of an action of a Box; `None`: actions are of another kind.

    Attributes:
        asked: names of the outputs that were asked for, anywhere.
        asked_of_target: names of those that the target weights were asked for.
    """

    def __init__(self, known: Sequence[str], agent: Agent, num_actions: int, event: tuple[int, ...] | None) -> None:
        self.known, self.num_actions, self.event, self.agent = known, num_actions, event, agent
        self.asked: set[str] = set()
        self.asked_of_target: list[str] = []

    def of(self, batch: Any) -> "SketchedOutputs":
        """Return the outputs at the current weights for a batch of abstract tensors."""
        return SketchedOutputs(self, batch)

    @property
    def asks_action_values(self) -> bool:
        """True once an output was asked that a network of Discrete actions' values has."""
        if self.agent.critics_of_actions:
            return False
        return bool(self.asked & {*_OF_ACTION_VALUES}) or ("q" in self.asked and self.event is None)

    def require_discrete(self, name: str = "q") -> None:
        """Raise a ValueError for an output of Discrete actions in another space."""
        if not self.num_actions:
            learns = "the logits of each action" if name == "logits" else "a value of each action (it credits q)"
            raise ValueError(
                f"{type(self.agent).__name__} learns {learns}, and the environment's actions are "
                "not Discrete: take an agent for continuous actions, such as sac, or for any, such as ppo, or wrap the actions."
            )

    def require_continuous(self, name: str) -> None:
        """Raise a ValueError for an output of continuous actions in another space."""
        if self.event is None:
            raise ValueError(
                f"{type(self.agent).__name__} asks for {name}, which moves with the policy's weights in a Box alone, and the "
                "environment's actions are of another kind: take an agent that credits q or log_prob, such as dqn or ppo."
            )

    def like(self, rows: tf.Tensor, name: str) -> tf.Tensor:
        """Return numbers of the shape of an output, for rows (M,)."""
        width = self.agent.action_values.width
        each = (width,) if width else ()
        shapes = {"q_values": (self.num_actions, *each), "expected": (self.num_actions,), "action": self.event or ()}
        shapes["q"] = each if self.event is None else (self.agent.num_critics, *each)
        shapes["logits"] = (self.num_actions,)
        if self.agent.critics_of_actions:
            shapes |= {"q": (self.agent.num_critics,), "q_values": (self.agent.num_critics, self.num_actions)}
        shape = shapes.get(name, ())
        return tf.reshape(rows, (-1, *[1] * len(shape))) + tf.zeros(shape)

    def ask(self, name: str) -> None:
        """Note that an output was asked for."""
        if name in (*_OF_ACTION_VALUES, "logits") or (name == "q" and self.agent.critics_of_actions):
            self.require_discrete(name)
        if name in ("action", "action_log_prob"):
            self.require_continuous(name)
        self.asked.add(name)


class SketchedOutputs(Outputs):
    """See `Sketch`."""

    def __init__(self, sketch: Sketch, batch: Any) -> None:
        self._sketch, self._rows, self._batch = sketch, batch.log_probs, batch
        super().__init__(**dict.fromkeys(sketch.known, batch.log_probs))

    @property
    def shapes(self) -> dict[str, tf.Tensor]:
        """Outputs whose shapes are known, by name."""
        sketch = self._sketch
        found = dict.fromkeys(("log_prob", "entropy", "value", *sketch.agent.scalars), self._rows)
        known = ON_DEMAND[:-1] if sketch.event is not None else ("q", "logits") if sketch.num_actions else ()
        return found | {name: sketch.like(self._rows, name) for name in known}

    @property
    def q(self) -> tf.Tensor:
        """The network's number for the action that was taken."""
        return self._asked("q")

    @property
    def action(self) -> tf.Tensor:
        """A sample of the policy."""
        return self._asked("action")

    @property
    def action_log_prob(self) -> tf.Tensor:
        """The log-probability of that sample."""
        return self._asked("action_log_prob")

    @property
    def beside(self) -> Any:
        """Return stand-ins at the agent's further rows."""
        agent = self._sketch.agent
        if agent.beside(self._batch, self) is None:
            raise ValueError(
                f"{type(agent).__name__} reads now.beside and has no rows beside the batch's: override beside(batch, now)."
            )
        return SketchedAnswers(self._sketch, self._rows, self._rows, [])

    @property
    def logits(self) -> tf.Tensor:
        """The logits of Discrete actions."""
        return self._asked("logits")

    def at(self, observations: Any, actions: Any = None) -> Any:
        """Return stand-ins at other observations."""
        return SketchedAnswers(self._sketch, self._rows, actions, [])

    def target(self, observations: Any, actions: Any = None) -> Any:
        """Return stand-ins at the target weights, which note what is read."""
        return SketchedAnswers(self._sketch, self._rows, actions, self._sketch.asked_of_target)

    def slope(self, output: Any, observations: Any, actions: Any) -> Any:
        """Return numbers of the shape of an action."""
        self._sketch.require_continuous("slope")
        found = output(SketchedAnswers(self._sketch, self._rows, actions, []))
        if not tf.is_tensor(found) or found.shape.rank != 1:
            got = f"the shape {found.shape}" if tf.is_tensor(found) else repr(found)
            raise ValueError(f"now.slope is of an output with one number for each row, (M,); got {got}.")
        return self._sketch.like(self._rows, "action")

    def noise(self, size: int) -> Any:
        """Return numbers (M, size)."""
        return self._rows[:, None] + tf.zeros((size,))

    def _asked(self, name: str) -> tf.Tensor:
        self._sketch.ask(name)
        return self._sketch.like(self._rows, name)


class SketchedAnswers:
    """See `Outputs.at`."""

    def __init__(self, sketch: Sketch, rows: tf.Tensor, actions: Any, asked: list[str]) -> None:
        self._sketch, self._rows, self._actions, self._asked = sketch, rows, actions, asked

    def __getattr__(self, name: str) -> Any:
        known = (*_OF_ACTION_VALUES, *ON_DEMAND, "log_prob", "entropy", "value", *self._sketch.known)
        if name.startswith("_") or name not in known:
            raise AttributeError(f"There is no output {name!r}. {close_names(name, known)}")
        if name in _OF_ACTIONS and self._actions is None:
            raise AttributeError(f"{name} is of actions: pass them, as in now.at(observations, actions).{name}.")
        self._asked.append(name)
        # These are numbers of any policy of continuous actions: none has to move with them.
        if name in ("action", "action_log_prob"):
            self._sketch.require_continuous(name)
        else:
            self._sketch.ask(name)
        return self._sketch.like(self._rows, name)
