"""The contract between an update rule and what calls it.

An update decides how the weights move, given how much each gradient counts. A rule of your own is a subclass of `Update` with a
method `apply`, and with `build` if it remembers something from one rollout to the next:

    class SignAscent(Update):
        step: float = 1e-3

        def apply(self, objective, state, seed):
            gradient, metrics = objective.gradient()
            values = values_after(state.variables, map(tf.sign, gradient.values()), self.step)
            finite = all_finite([*gradient.values(), *values])
            assign_if(finite, state.variables, values)
            return metrics | {"nonfinite_step": tf.where(finite, -1, 0)}

It is a field of an agent: `A2C(update=SignAscent())`. In YAML and on the command line `type:` names its class, by its place
(`sign_ascent.py:SignAscent`) or by its name among the entry points `rlgrad.updates`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import keras
import tensorflow as tf

from rlgrad.data import Batch, Metrics, Outputs
from rlgrad.gradients import Linearization
from rlgrad.hyperparameters import Record
from rlgrad.search import Space


class Objective(Protocol):
    """The function that an update climbs: Σ_k Σ_t w_t c_k,t f_k(s_t, a_t), with the credits c as plain numbers.

    Everything here is traced as part of one compiled program. An objective may answer from a forward pass that was made before
    any weight moved. After a step, take `moved()` or `on(…)`, which read the current weights.
    """

    @property
    def batch(self) -> Batch:
        """Return the rows of the rollout, with weights w and the progress of training."""

    @property
    def agent(self) -> Any:
        """Return the agent that gives the credits."""

    @property
    def policy(self) -> Any:
        """Return the policy that gives the outputs."""

    @property
    def credited(self) -> tuple[str, ...]:
        """Return the names of the outputs f_k."""

    @property
    def variables(self) -> Sequence[keras.Variable]:
        """Return what may move, in the order of every gradient."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Return the names of what `metrics` measures."""

    def on(self, rows: Any, share: float) -> "Objective":
        """Return the same objective on some rows of the batch.

        Args:
            rows: int (m,), which.
            share: factor on the weights; M / m keeps the objective's expectation.
        """

    def moved(self) -> "Objective":
        """Return the same objective, to be read at weights that have moved since it was made."""

    def of(self, credited: tuple[str, ...], variables: Sequence[keras.Variable]) -> "Objective":
        """Return the same objective, of some of the credited outputs and their variables alone."""

    def linearize(self) -> Linearization:
        """Return the outputs at the current weights, with their gradients: one forward pass, one backward pass."""

    def scores(self) -> Linearization:
        """Return the log-probabilities of the actions alone, whose gradients are the scores."""

    def credited_outputs(self) -> tuple[Linearization, Outputs, dict[str, tf.Tensor]]:
        """Return the outputs at the current weights, as gradients and as numbers, and w c of the credited ones, (M,) each."""

    def gradient(self) -> tuple[dict[str, tf.Tensor], Metrics]:
        """Return Σ_k Σ_t w_t c_k,t ∇f_k by variable path, in the order of `variables`, and the objective's metrics."""

    def row_gradients(self, credit: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
        """Return Σ_k c_k,t ∇f_k of each row by itself, (M, *shape) for each of `variables`."""

    def metrics(self, now: Outputs) -> Metrics:
        """Return weighted means of what `metric_names` names, of these outputs."""

    def at(self, values: Sequence[tf.Tensor]) -> tuple[Outputs, tf.Tensor]:
        """Return the outputs at other weights, and the mean divergence KL(π ‖ π′) from the current weights to those, in nats.

        Args:
            values: one for each of `variables`, which keep their own.
        """


class State(Protocol):
    """The state that an update keeps from one rollout to the next."""

    @property
    def slots(self) -> Sequence[keras.Variable]:
        """Return what a checkpoint keeps, in an order that depends on the update and its variables alone."""


def slots_in(state: State, arrays: Sequence[Any]) -> list[Any] | None:
    """Return the slots in a checkpoint's arrays, in the order of `state.slots`.

    A state may have a method `slots_from(arrays)`, which reads what an earlier version of it kept.

    Args:
        state: of an update.
        arrays: NumPy arrays.

    Returns:
        The arrays; `None` if they are those of another state.
    """
    if [array.shape for array in arrays] == [tuple(slot.shape) for slot in state.slots]:
        return list(arrays)
    return state.slots_from(arrays) if hasattr(state, "slots_from") else None


@dataclass(frozen=True)
class NoSlots:
    """The state of an update that remembers nothing: the variables that it moves."""

    variables: list[keras.Variable]

    @property
    def slots(self) -> list[keras.Variable]:
        """Return nothing: a checkpoint has nothing to keep."""
        return []


class Update(Record):
    """How the weights move. A frozen record of hyper-parameters; what changes while training is in its `State`.

    Only `apply` must be written. The other members answer questions that the framework and agents ask of any update.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make the subclass a dataclass. Raise for a field `type`, which in YAML names the class."""
        super().__init_subclass__(**kwargs)
        if "type" in cls.__dataclass_fields__:
            raise TypeError(f"{cls.__name__}.type: in YAML `type:` names the class of an update; choose another name.")

    def build(
        self, variables: Sequence[keras.Variable], num_envs: int, by_output: Mapping[str, Sequence[keras.Variable]]
    ) -> Any:
        """Return the state that `apply` takes; by default one that holds the variables and remembers nothing.

        Args:
            variables: what is to move.
            num_envs: columns of a rollout.
            by_output: for each credited output, the variables that it depends on.

        Raises:
            ValueError: the update cannot move these.
        """
        del num_envs, by_output
        return NoSlots(list(variables))

    def apply(self, objective: Objective, state: Any, seed: Any) -> Metrics:
        """Move the weights by one rollout: all epochs and minibatches, if there are several.

        Traced once, as part of a program that XLA compiles: no Python `if` on a tensor.

        Args:
            objective: what is climbed.
            state: from `build`.
            seed: int32 (2,), for shuffles.

        Returns:
            Float () by name: the objective's own metrics, those that `metrics` names, and `nonfinite_step`, int32: the number
            of the first step that was left out because it was not finite, −1 if there was none.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method `apply(self, objective, state, seed)`.")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of what `apply` reports besides the objective's own metrics and `nonfinite_step`."""
        return ()

    def search_space(self) -> Space:
        """Return what `rlgrad tune` searches of this update unless told otherwise: ranges or choices by field."""
        return {}

    @property
    def steps_per_rollout(self) -> int | None:
        """Return how many steps the policy takes on each rollout; `None` if that is not known beforehand.

        1 promises that `apply` asks for the objective's gradient once, and before it moves anything.
        """
        return None

    @property
    def is_one_step(self) -> bool:
        """Return True if the update is known to take one step on each rollout, so that the learner can share a forward pass.

        A subclass that overrides `apply` makes the promise of `steps_per_rollout` anew, or it does not hold.
        """
        classes = type(self).__mro__
        applies, promises = (
            next(cls for cls in classes if name in vars(cls)) for name in ("apply", "steps_per_rollout")
        )
        return self.steps_per_rollout == 1 and issubclass(promises, applies)

    @property
    def needs_only_gradients(self) -> bool:
        """Return True if `apply` asks for nothing but the objective's `gradient()`, which several learners can add up."""
        return False

    @property
    def moves_only_the_policy(self) -> bool:
        """Return True if the update limits a step by how far the policy moves, which says nothing about a value."""
        return False

    def field_of(self, output: str) -> str | None:
        """Return the field that holds the update of a credited output; `None` if this update moves it itself."""
        del output
        return None

    def part(self, output: str) -> "Update":
        """Return the update that moves a credited output: this one, or one of its fields."""
        name = self.field_of(output)
        return self if name is None else getattr(self, name).part(output)

    def locate(self, step: int, rows: int) -> str:
        """Return where a step was, for messages, such as `epoch 1, minibatch 3`; empty where there is one step.

        Args:
            step: counted from 0.
            rows: of the batch.
        """
        del step, rows
        return ""

    @property
    def kind(self) -> str:
        """Return what the state of this update is the state of: a run continues with an update of the same kind only."""
        return type(self).__name__

    def with_optimizer(self, optimizer: str | keras.optimizers.Optimizer) -> Self:
        """Return the update with another Keras optimizer, as `rlgrad.train(optimizer=…)` asks for.

        Raises:
            ValueError: the update does not move all weights by one optimizer.
        """
        del optimizer
        raise ValueError(
            f"optimizer= is for an agent that moves all its weights by one, and this one's update is {type(self).__name__}: "
            "set it there, for example PerHead(policy=Ascent(optimizer=…), value=Ascent(optimizer=…))."
        )
