"""The rows of a step spread over several learners. Each gives the gradient of its share; these are added in rank order.

    Σ_t w_t c_t ∇f(s_t, a_t)  =  Σ over share 0  +  Σ over share 1  +  …

A credit may look at all rows, as where advantages are standardized over a minibatch. So the outputs of all shares come back
first, the credits are computed here from all of them, and each learner differentiates its share with its part of the credits.
The other learners know nothing but the weights that they are sent with each step, so none of them has a state to lose.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from rlgrad import gradients
from rlgrad.agent import Agent
from rlgrad.data import Batch
from rlgrad.learning.objective import output_specs, question
from rlgrad.policies.policy import Policy
from rlgrad.streams import StreamAgent

Arrays = Sequence[np.ndarray[Any, Any]]
UNKNOWN = Batch(*[None] * len(Batch._fields))
"""A batch of which nothing is known yet."""


class Asked(NamedTuple):
    """A question about some rows.

    Attributes:
        names: of the outputs.
        variables: numbers, among the policy's variables, of those that the gradient is of.
        rows: a tree of the observations, actions and seeds, with anything as leaves.
    """

    names: tuple[str, ...]
    variables: tuple[int, ...]
    rows: Any


class Asks(NamedTuple):
    """The questions of an agent to a policy, without the agent."""

    scalars: Mapping[str, float]
    outputs: Mapping[str, Any]


class Ranks(Protocol):
    """The learners besides this one, which is number 0."""

    @property
    def count(self) -> int:
        """Return their number, this one included."""

    def serve(self, linearize: Callable[..., gradients.Linearization], policy: Policy) -> None:
        """Take what the learners answer by, and for which policy. Called once, before anything else.

        Args:
            linearize: `linearize_rows` of an agent.
            policy: its second argument.
        """

    def begin(self, asked: Asked, weights: Arrays, shares: Sequence[Arrays]) -> None:
        """Have each of the other learners compute the outputs of its share.

        Args:
            asked: what.
            weights: values of the policy's variables.
            shares: for each of the others, the leaves of its rows.
        """

    def outputs(self) -> list[Arrays]:
        """Return the outputs that each of the others found, in the order of their names."""

    def gradients(self, names: Sequence[str], credits: Sequence[Arrays]) -> list[Arrays]:
        """Return the gradient that each of the others finds, by variable, for its part of the credits of these outputs."""

    def close(self) -> None:
        """End the other learners."""


def require_spreadable(agent: Agent) -> None:
    """Raise a ValueError for an agent whose gradients several learners cannot add up."""
    name, other = type(agent).__name__, "leave learners out"
    if agent.replay is not None:
        raise ValueError(
            f"{name} learns from small batches of a replay, which the learner draws from its own memory: {other}."
        )
    if isinstance(agent, StreamAgent):
        raise ValueError(f"{name} learns from each step as it comes, and one step is not shared: {other}.")
    if callable(agent.outputs):
        raise ValueError(
            f"{name}.outputs depends on the batch, of which each learner has its share alone: {other}, or make outputs a dict."
        )
    if not agent.update.needs_only_gradients:
        of_policy = agent.update.part("log_prob")
        lacking = agent.update if of_policy.needs_only_gradients else of_policy
        raise ValueError(
            f"Several learners add up gradients, and {type(lacking).__name__} asks for more than these: {other}, or use "
            "Ascent. An update of your own that only asks objective.gradient() says so by needs_only_gradients."
        )


class Spread:
    """Asks several learners about the rows of a step, as part of a program that is not compiled with XLA.

    Args:
        agent: says which outputs there are.
        policy: gives them.
        ranks: the other learners.
    """

    def __init__(self, agent: Agent, policy: Policy, ranks: Ranks) -> None:
        require_spreadable(agent)
        self._policy, self.ranks = policy, ranks
        assert isinstance(agent.outputs, Mapping)
        self._linearize = partial(linearize_rows, Asks(dict(agent.scalars), dict(agent.outputs)))
        self._numbers = {id(variable): i for i, variable in enumerate(policy.variables)}
        self._fault: BaseException | None = None  # what failed in the midst of a program
        ranks.serve(self._linearize, policy)

    def linearize(self, batch: Any, names: Sequence[str], variables: Sequence[Any]) -> Any:
        """Return what `gradients.linearize` returns of a batch's outputs, as far as it is outputs and gradients.

        Args:
            batch: M rows.
            names: of the outputs.
            variables: what may move.

        Raises:
            ValueError: there are fewer rows than learners.
        """
        tree = rows_of(batch, names)
        leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(tree)]
        count, ranks = int(leaves[0].shape[0]), self.ranks.count
        if count < ranks:
            raise ValueError(
                f"A step learns from {count} rows, too few for {ranks} learners: lower learners or num_minibatches."
            )
        ends = [count * rank // ranks for rank in range(ranks + 1)]
        places = tf.nest.pack_sequence_as(tree, range(len(leaves)))
        asked = Asked(tuple(names), tuple(self._numbers[id(v)] for v in variables), places)
        weights = [tf.convert_to_tensor(variable.value) for variable in self._policy.variables]

        def begin(*arrays: Any) -> list[Any]:
            own, rows = arrays[: len(weights)], arrays[len(weights) :]
            self.ranks.begin(asked, own, [[leaf[a:b] for leaf in rows] for a, b in pairwise(ends[1:])])
            return []

        self.call(begin, [*weights, *leaves], [])
        mine = tf.nest.pack_sequence_as(tree, [leaf[: ends[1]] for leaf in leaves])
        here = self._linearize(self._policy, mine, names, variables)
        return SpreadLinearization(self, here, ends)

    @contextlib.contextmanager
    def faults(self) -> Iterator[None]:
        """Raise what fails in the midst of a program as it is: TensorFlow replaces it by an error of its own."""
        try:
            yield
        except tf.errors.OpError as error:
            if self._fault is None:
                raise
            fault, self._fault = self._fault, None
            raise fault from error

    def call(self, function: Callable[..., Any], arguments: Sequence[Any], like: Sequence[Any]) -> list[Any]:
        """Call a Python function on arrays, in the midst of a program and in the order in which it is written.

        Args:
            function: returns arrays.
            arguments: tensors.
            like: specs of what it returns.
        """

        def kept(*arrays: Any) -> Any:
            try:
                return function(*arrays)
            except BaseException as error:
                self._fault = error
                raise

        found = tf.numpy_function(kept, arguments, [spec.dtype for spec in like])
        results = list(found) if isinstance(found, list | tuple) else [found] if like else []
        for result, spec in zip(results, like, strict=True):
            result.set_shape(spec.shape)
        return results


class SpreadLinearization:
    """Outputs of rows that are spread over learners, and their gradients.

    Args:
        spread: asks the others.
        own: of the rows of this one.
        ends: of the shares, the first of which begins at 0.
    """

    def __init__(self, spread: Spread, own: gradients.Linearization, ends: Sequence[int]) -> None:
        self._spread, self._own, self._ends = spread, own, ends

    @cached_property
    def outputs(self) -> dict[str, tf.Tensor]:
        """The outputs of all rows, by name."""
        own: dict[str, tf.Tensor] = self._own.outputs
        like = [tf.TensorSpec((self._ends[-1], *x.shape[1:]), x.dtype) for x in own.values()]

        def join(*mine: Any) -> list[Any]:
            parts = zip(mine, *self._spread.ranks.outputs(), strict=True)
            return [np.concatenate(of_one) for of_one in parts]

        return dict(zip(own, self._spread.call(join, [*own.values()], like), strict=True))

    def gradient(self, credit: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return Σ credit · ∇f over all rows, by variable path. `outputs` was read before.

        Args:
            credit: numbers of each row, by output.
        """
        names, first = tuple(credit), self._ends[1]
        own = self._own.gradient({name: c[:first] for name, c in credit.items()})
        like = [tf.TensorSpec(g.shape, g.dtype) for g in own.values()]

        def add(*arrays: Any) -> list[Any]:
            mine, credits = arrays[: len(own)], arrays[len(own) :]
            shares = [[c[a:b] for c in credits] for a, b in pairwise(self._ends[1:])]
            sums = [g.copy() for g in mine]
            for found in self._spread.ranks.gradients(names, shares):
                for i, g in enumerate(found):
                    sums[i] += g
            return sums

        return dict(zip(own, self._spread.call(add, [*own.values(), *credit.values()], like), strict=True))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"Several learners add up gradients alone, and an update asks for {name!r} of their rows: leave learners out."
        )


def rows_of(batch: Any, names: Sequence[str]) -> Any:
    """Return the parts of a batch that outputs are computed from: observations, actions, and seeds where an action is drawn."""
    draws = {"action", "action_log_prob"} & {*names}
    return batch.observations, batch.actions, batch.seeds if draws else ()


def linearize_rows(
    agent: Any, policy: Policy, rows: Any, names: Sequence[str], variables: Sequence[Any]
) -> gradients.Linearization:
    """Return the outputs of some rows, by name, with their gradients.

    Args:
        agent: an agent, or what it asks.
        policy: gives the outputs.
        rows: from `rows_of`.
        names: of the outputs.
        variables: what the gradients are of.
    """
    observations, actions, seeds = rows
    batch = UNKNOWN._replace(observations=observations, actions=actions, seeds=seeds)
    model, inputs = question(policy, batch, names)
    specs = output_specs(agent, policy, batch, names)
    return gradients.linearize(model, inputs, output=specs, weights=list(variables))
