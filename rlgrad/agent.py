"""An agent answers one question: how much does each gradient count?"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from rlgrad import estimators, search
from rlgrad._record import Record, close_names, require
from rlgrad.gradients.tensorflow_internals import trace
from rlgrad.rollouts.rollout import Rollout
from rlgrad.updates import Ascent, Update

Credit = Mapping[str, Any]
"""For each output that is trained, how much its gradient counts: a number, or float (M,). What `Agent.credit` returns."""
OUTPUTS = ("log_prob", "entropy", "value")  # of every policy; the value only where something estimates it


class Estimates(NamedTuple):
    """What an agent makes of a rollout's rewards before the update. Each float (T, N), in units of reward."""

    returns: Any
    advantages: Any
    td_errors: Any


class Batch(NamedTuple):
    """The numbers that stood fixed when the rollout was collected. M rows: steps, in no particular order.

    Of a policy with memory a row is a sequence of T steps: (M, T) where it says (M,) here, and the observations are the
    sequences that the policy takes.

    Attributes:
        observations: (M, …), what the policy saw. May be a tree of arrays.
        actions: (M, …), as sampled.
        log_probs: float (M,), log π(a|s) in nats when the action was taken.
        values: float (M,), v(s), in units of reward; zeros where nothing estimates it.
        returns: float (M,), from `Agent.estimate`, in units of reward.
        advantages: float (M,), likewise.
        td_errors: float (M,), likewise.
        weights: float (M,), how much each row counts: the update is Σ weights · credit · ∇f.
        progress: float (), share of the run's environment steps already taken, 0 … 1.
    """

    observations: Any
    actions: Any
    log_probs: Any
    values: Any
    returns: Any
    advantages: Any
    td_errors: Any
    weights: Any
    progress: Any

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"A batch has no {name!r}. {close_names(name, self._fields)}")


class Outputs:
    """What the policy says at its current weights, as plain numbers: `log_prob`, `entropy`, `value`, each float (M,).

    And each of the agent's own `outputs`, by its name.
    """

    log_prob: Any
    entropy: Any
    value: Any

    def __init__(self, **outputs: Any) -> None:
        self.__dict__.update(outputs)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"There is no output {name!r}. {close_names(name, self.__dict__)}")


class Agent(Record):
    """A frozen dataclass of hyper-parameters: no weights, no state. Override `credit`, and nothing else is needed.

    Annotated class attributes of a subclass are its hyper-parameters; they appear on the command line and in YAML.

    Example:
        >>> class MyAgent(Agent):
        ...     temperature: float = 1.0
        ...     def credit(self, batch, now):
        ...         return {"log_prob": tf.tanh(batch.advantages / self.temperature),
        ...                 "value": batch.returns - now.value}
    """

    outputs: ClassVar[Mapping[str, Any]] = {}
    """Further outputs of the policy that can be credited, by name: each what `output=` of `rlgrad.gradients` takes, such as
    the name of a head of the model."""

    gamma: float = 0.99
    """Discount per step, 0 to 1."""
    gae_lambda: float = 0.95
    """λ of the returns: 0 trusts the value estimate, 1 the sampled rewards."""
    num_envs: int = 8
    """Environments stepped side by side."""
    num_steps: int | None = 32
    """Steps per environment per rollout; none: whole episodes."""
    episodes_per_env: int = 1
    """Whole episodes per environment per rollout, where num_steps is none."""
    normalize_observations: bool = False
    """Standardize observations by their running mean and deviation, inside the policy."""
    scale_rewards: bool = False
    """Divide rewards by how much their discounted sum varies; what is logged stays in the environment's units."""
    update: Update = Ascent()
    """How the weights move."""

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        require(0.0 <= self.gamma <= 1.0, "gamma", "between 0 and 1", self.gamma)
        require(0.0 <= self.gae_lambda <= 1.0, "gae_lambda", "between 0 and 1", self.gae_lambda)
        require(self.num_envs >= 1, "num_envs", "at least 1", self.num_envs)
        require(self.num_steps is None or self.num_steps >= 1, "num_steps", "at least 1, or none", self.num_steps)
        require(self.episodes_per_env >= 1, "episodes_per_env", "at least 1", self.episodes_per_env)
        if self.num_steps is not None and self.episodes_per_env != 1:
            raise ValueError("episodes_per_env speaks of whole episodes and num_steps of steps: set num_steps to none.")

    def estimate(self, rollout: Rollout) -> Estimates:
        """Returns, advantages and TD errors of a rollout.

        The default gives λ-returns. Where no output estimates the value (`rollout.values` is None), it gives
        reward-to-go, and a time limit counts as the end of the task.

        Args:
            rollout: (T, N) arrays; `values` and `next_values` are filled.

        Returns:
            `Estimates`, each float (T, N), in units of reward.
        """
        boundaries = rollout.terminations | rollout.truncations
        if rollout.values is None:
            returns = estimators.reward_to_go(rollout.rewards, boundaries, self.gamma)
            return Estimates(returns, returns, returns)
        returns = estimators.lambda_returns(
            rollout.rewards,
            rollout.values,
            rollout.next_values,
            rollout.terminations,
            boundaries,
            self.gamma,
            self.gae_lambda,
        )
        deltas = estimators.td_errors(
            rollout.rewards, rollout.values, rollout.next_values, rollout.terminations, self.gamma
        )
        return Estimates(returns, returns - rollout.values, deltas)

    def credit(self, batch: Batch, now: Outputs) -> Credit:
        """How much each output's gradient counts at each step; positive raises the output.

        Numbers in, numbers out: nothing here is differentiated. The method is traced once and compiled, so conditions on
        tensors are written with `tf.where`.

        Args:
            batch: what was collected and estimated.
            now: the outputs at the current weights.

        Returns:
            By output (`"log_prob"`, `"entropy"`, `"value"`): a float or float (M,). An output left out is not trained.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method `credit(self, batch, now)`.")

    def measure(self, batch: Batch, now: Outputs) -> Mapping[str, Any]:
        """What the agent wants logged of its own: means over the rows, then over the steps of the update.

        Asked wherever the policy moves, so not of an agent that credits no `"log_prob"`.

        Args:
            batch: what was collected and estimated.
            now: the outputs at the current weights.

        Returns:
            By name: a number or one for each row, (M,). `"clip_fraction"` is logged as `train/clip_fraction`.
        """
        return {}

    def search_space(self) -> search.Space:
        """What `rlgrad tune` searches, unless it is told otherwise: a range or a list of choices for each name.

        Names are those of fields; a dot leads into a field's own fields, as in `"update.learning_rate"`.
        """
        return {
            "gamma": [0.9, 0.95, 0.98, 0.99, 0.995, 0.999],
            "gae_lambda": search.Range(0.8, 1.0),
            **search.of_update(self.update),
        }


def batch_signature(observation_spec: Any, action_spec: tf.TensorSpec) -> Batch:
    """Specs of a batch with these observations and actions, M unknown."""
    specs: dict[str, Any] = dict.fromkeys(Batch._fields, tf.TensorSpec((None,), tf.float32))
    specs |= {"observations": observation_spec, "actions": action_spec, "progress": tf.TensorSpec((), tf.float32)}
    return Batch(**specs)


def checked_credit(agent: Agent, credit: Any, like: tf.Tensor) -> dict[str, tf.Tensor]:
    """What `Agent.credit` returned, as tensors of the shape of one number for each row, or of one for all.

    Args:
        agent: for messages.
        credit: what it returned.
        like: float (M,), whose shape and dtype a credit has.

    Raises:
        ValueError: something else than a mapping of such numbers. Shapes and dtypes are known before anything runs.
    """
    name = type(agent).__name__
    if not isinstance(credit, Mapping) or not credit:
        raise ValueError(f'{name}.credit returns a dict such as {{"log_prob": batch.advantages}}, got {credit!r}.')
    return {key: _checked_numbers(f"{name}.credit[{key!r}]", c, like, or_one=True) for key, c in credit.items()}


def checked_estimates(agent: Agent, estimates: Any, like: tf.Tensor) -> Estimates:
    """What `Agent.estimate` returned, each of the shape of `like`, float (T, N).

    Raises:
        ValueError: something else than `Estimates` of such numbers.
    """
    name = f"{type(agent).__name__}.estimate"
    if not isinstance(estimates, Estimates):
        raise ValueError(f"{name} returns rlgrad.Estimates(returns, advantages, td_errors), got {estimates!r}.")
    pairs = estimates._asdict().items()
    return Estimates(**{key: _checked_numbers(f"{name}'s {key}", x, like, or_one=False) for key, x in pairs})


def _checked_numbers(what: str, x: Any, like: tf.Tensor, or_one: bool) -> tf.Tensor:
    try:
        x = x if tf.is_tensor(x) else tf.convert_to_tensor(x, like.dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} is no number and no tensor of numbers: got {x!r}.") from error
    if x.dtype != like.dtype:
        raise ValueError(f"{what} is {x.dtype.name} where {like.dtype.name} is expected: use tf.cast(…, tf.float32).")
    if not (x.shape.is_compatible_with(like.shape) or (or_one and x.shape.rank == 0)):
        rows = "one number for each row" + (", or one for all" if or_one else "")
        raise ValueError(f"{what} has the shape {x.shape} where {like.shape} is expected: {rows}.")
    return x


class DryRun(NamedTuple):
    """What an agent turned out to do.

    Attributes:
        known: the outputs there are.
        credited: those whose gradients count, in the order of `known`.
        measured: names of what the agent measures.
    """

    known: tuple[str, ...]
    credited: tuple[str, ...]
    measured: tuple[str, ...]


def dry_run(agent: Agent, signature: Batch, *, value: bool = True) -> DryRun:
    """The outputs that an agent credits, found by a dry run of its methods on abstract tensors.

    Args:
        agent: the agent.
        signature: a batch of `tf.TensorSpec`.
        value: whether there is, or can be, a value.

    Raises:
        ValueError: `credit` reads an attribute or credits an output that does not exist, branches on a tensor, or returns
            something else than a mapping of numbers; or an output of the agent's own has a name that is taken.
    """
    name = type(agent).__name__
    own = OUTPUTS if value else OUTPUTS[:-1]
    taken = next((key for key in agent.outputs if key in OUTPUTS), None)
    if taken is not None:
        raise ValueError(f"{name}.outputs has {taken!r}, which every policy has already: choose another name.")
    known = (*own, *agent.outputs)

    def traced(method: str) -> Any:
        def on(batch: Batch) -> Any:
            given = getattr(agent, method)(batch, Outputs(**dict.fromkeys(known, batch.log_probs)))
            return checked_credit(agent, given, batch.log_probs) if method == "credit" else given

        try:
            return trace(on, signature).structured_outputs
        except AttributeError as error:
            raise ValueError(f"{name}.{method}: {error}") from error
        except tf.errors.OperatorNotAllowedInGraphError as error:
            raise ValueError(
                f"{name}.{method} is traced once and compiled, so Python's `if`, `and`, `or`, `not` and `while` cannot "
                "look at a tensor's numbers: write tf.where(condition, a, b), tf.maximum, or &, | and ~ instead."
            ) from error

    credit = traced("credit")
    for key in credit:
        if key not in known:
            raise ValueError(f"{name}.credit credits an output {key!r} that does not exist. {close_names(key, known)}")
    measured = traced("measure")
    if not isinstance(measured, Mapping):
        raise ValueError(f'{name}.measure returns a dict such as {{"ratio": ratio}}, got {measured!r}.')
    return DryRun(known, tuple(output for output in known if output in credit), tuple(measured))
