"""Questions of `credit` to the networks: their outputs at other observations and at the target weights, as numbers."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import tensorflow as tf

from rlgrad import gradients, random
from rlgrad.core.checks import close_names
from rlgrad.data import Outputs
from rlgrad.distributions import Deterministic
from rlgrad.gradients import Each
from rlgrad.policies.critics import ACTIONS, OBSERVATIONS, Q_VALUES, have_batch_statistics
from rlgrad.policies.policy import Policy
from rlgrad.policies.recurrent import RecurrentPolicy

_OF_LAYERS = -1  # a number that no call has: the seeds of layers
_INFERENCE: Mapping[str, Any] = {}
Placed = Mapping[str, Any]
"""Values in the place of a policy's own, by the variables' keys, as `at=` of `rlgrad.gradients` takes them."""


class Now(Outputs):
    """The outputs at the current weights, as numbers, of a policy that can be asked.

    Args:
        outputs: by name.
        policy: gives the answers.
        seeds: int32 (M, 2), of each row.
        target: the target weights; `None`: the agent has none.
        training: critics are asked in training mode.
    """

    def __init__(
        self,
        outputs: dict[str, Any],
        policy: Policy,
        seeds: Any,
        target: Placed | None = None,
        training: bool = False,
    ) -> None:
        super().__init__(**outputs)
        self._policy, self._seeds, self._target, self._calls = policy, seeds, target, 0
        self._training = training

    def at(self, observations: Any, actions: Any = None) -> "Answers":
        """See `Outputs.at`."""
        return Answers(self._policy, observations, actions, noise=self._fresh(), mode=self._mode())

    def target(self, observations: Any, actions: Any = None) -> "Answers":
        """See `Outputs.target`."""
        if self._target is None:
            raise ValueError("This agent asks the target weights and has none: give it target=Target(rate=…, every=…).")
        return Answers(self._policy, observations, actions, self._target, noise=self._fresh(), mode=self._mode())

    def slope(self, output: Any, observations: Any, actions: Any) -> tf.Tensor:
        """See `Outputs.slope`."""

        def chosen(heads: dict[str, Any]) -> Any:
            return output(Outputs(**heads))

        inputs, model = {OBSERVATIONS: observations, ACTIONS: actions}, self._policy.with_critics
        self._calls += 1
        mode = {} if have_batch_statistics(self._policy.critics) else self._mode()
        found: tf.Tensor = gradients.input_gradient(model, inputs, output=chosen, inputs=ACTIONS, **mode)
        return found

    def noise(self, size: int) -> tf.Tensor:
        """See `Outputs.noise`."""
        return self._fresh()((size,))

    def _mode(self) -> dict[str, Any]:
        """Return how critics run for the call of a method that is the last one counted."""
        return training_mode(self._seeds, self._calls) if self._training else {}

    def _fresh(self) -> Callable[[tuple[int, ...]], tf.Tensor]:
        """Return a function from a shape to standard normal numbers for each row, other ones at each call of a method."""
        self._calls += 1
        number = self._calls
        return lambda shape: random.normal(random.fold_in(self._seeds, number), shape)


def training_mode(seeds: Any, number: int) -> dict[str, Any]:
    """Return arguments of `rlgrad.gradients` for training mode, with the seed of a numbered pass of a batch."""
    return {"training": True, "seed": random.fold_in(random.fold_in(seeds[0], _OF_LAYERS), number)}


class Answers:
    """The outputs at some observations, as numbers: computed where they are read, in one pass.

    Args:
        policy: gives them.
        observations: (M, …), or (T, N, …) of a rollout.
        actions: likewise, as stored; `None`: outputs of actions are not asked for.
        placed: weights in the place of the policy's own; `None`: none.
        noise: returns ε of a fresh sample of each row, of an action's shape; `None`: actions are not asked for.
        mode: how critics run, arguments of `rlgrad.gradients.evaluate`.
        q: what critics say of these actions, if it is known already.
    """

    def __init__(
        self,
        policy: Policy,
        observations: Any,
        actions: Any = None,
        placed: Placed | None = None,
        noise: Callable[[tuple[int, ...]], tf.Tensor] | None = None,
        mode: Mapping[str, Any] = _INFERENCE,
        q: tf.Tensor | None = None,
    ) -> None:
        if isinstance(policy, RecurrentPolicy):
            raise ValueError(
                "A policy with memory cannot be asked about single observations, since it remembers others: learn from "
                "batch.returns, or without a memory."
            )
        self._policy, self._observations, self._actions, self._placed = policy, observations, actions, placed
        self._noise, self._mode, self._q = noise, mode, q

    @property
    def observations(self) -> Any:
        """The observations that are asked about."""
        return self._observations

    def with_q(self, q: tf.Tensor) -> "Answers":
        """Return the same answers, of the action that the policy samples here, of which critics say this."""
        return Answers(self._policy, self._observations, self.action, self._placed, self._noise, self._mode, q)

    @cached_property
    def _heads(self) -> dict[str, Any]:
        heads: dict[str, Any] = gradients.evaluate(self._policy, self._observations, at=self._placed)
        return heads

    @cached_property
    def _epsilon(self) -> tf.Tensor:
        assert self._noise is not None
        return self._noise(tuple(self._policy.action_spec.shape[1:]))

    @property
    def action(self) -> tf.Tensor:
        """A fresh sample of the policy, as rollouts store actions, float (M, …); of a deterministic one, its action."""
        parameters = self._heads["policy"]
        if isinstance(self._policy.distribution, Deterministic):
            return self._policy.distribution.most_likely(parameters)
        return self._policy.distribution.reparameterized(parameters, self._epsilon)

    @property
    def action_log_prob(self) -> tf.Tensor:
        """The log-probability of that sample, in nats, float (M,)."""
        return self._policy.distribution.reparameterized_log_prob(self._heads["policy"], self._epsilon)

    @property
    def q_values(self) -> tf.Tensor:
        """The network's number for each action, float (M, A) or (M, A, K); E critics beside a policy, (M, E, A)."""
        if self._policy.critics_of_actions:
            heads = gradients.evaluate(self._policy.with_critics, self._told(None), at=self._placed, **self._mode)
            values: tf.Tensor = heads[Q_VALUES]
            return values
        self._require_action_values("q_values")
        return self._heads["policy"]

    @property
    def logits(self) -> tf.Tensor:
        """The logits of Discrete actions, float (M, A)."""
        return self._heads["policy"]

    @property
    def expected(self) -> tf.Tensor:
        """The expected return of each action, float (M, A)."""
        self._require_action_values("expected")
        greedy: Any = self._policy.distribution
        return greedy.expected(self._heads["policy"])

    @property
    def q(self) -> tf.Tensor:
        """The networks' numbers for the actions that are asked about, float (M,), (M, K), or (M, E) of E critics."""
        if self._q is not None:
            return self._q
        actions, policy = self._require_actions("q"), self._policy
        if not policy.critics:
            return tf.gather(self.q_values, actions, batch_dims=actions.shape.rank)
        return gradients.evaluate(
            policy.with_critics, self._told(actions), output=Each("q"), at=self._placed, **self._mode
        )

    @property
    def log_prob(self) -> tf.Tensor:
        """Log π(a|s) of the actions that are asked about, in nats, float (M,)."""
        actions = self._require_actions("log_prob")
        return self._policy.distribution.log_prob(self._heads["policy"], actions)

    @property
    def entropy(self) -> tf.Tensor:
        """H(π(·|s)), in nats, float (M,)."""
        return self._policy.distribution.entropy(self._heads["policy"])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._heads:
            known = [*(n for n in vars(type(self)) if not n.startswith("_")), *self._heads]
            raise AttributeError(f"There is no output {name!r}. {close_names(name, known)}")
        return self._heads[name]

    def _told(self, actions: Any) -> dict[str, Any]:
        """Return inputs of the critics; without actions, those of critics that say a value of each."""
        if actions is None:
            rows = tf.shape(tf.nest.flatten(self._observations)[0])[:1]
            actions = tf.zeros(rows, self._policy.action_spec.dtype)
        return {OBSERVATIONS: self._observations, ACTIONS: actions}

    def _require_action_values(self, name: str) -> None:
        if not self._policy.says_action_values:
            raise AttributeError(
                f"There is no {name}: this agent credits no q, so its network says how likely actions are."
            )

    def _require_actions(self, name: str) -> Any:
        if self._actions is None:
            raise ValueError(f"{name} is of actions: pass them, as in now.at(observations, actions).{name}.")
        return self._actions
