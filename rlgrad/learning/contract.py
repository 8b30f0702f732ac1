"""The contract of agents and updates with the learner: an agent is traced on abstract tensors, and results are checked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from rlgrad.agent import Agent
from rlgrad.core.checks import close_names
from rlgrad.core.tensorflow_internals import trace
from rlgrad.data import Batch, Estimates, Metrics, ReplayBatch
from rlgrad.learning.sketch import ON_DEMAND, Sketch
from rlgrad.metrics import METRICS
from rlgrad.policies.actions import ActorCritic
from rlgrad.updates import Update

OUTPUTS = ("log_prob", "entropy", "value")  # of every policy; the value only if the policy has one
ACTION_VALUES = ("q", "value")  # of one whose network says how good each action is
_NONFINITE = "nonfinite_step"


def batch_signature(observation_spec: Any, action_spec: tf.TensorSpec, *, replay: bool = False) -> Batch | ReplayBatch:
    """Return the specs of a batch with these observations and actions, M unknown: of a rollout, or of a replay."""
    kind: Any = ReplayBatch if replay else Batch
    specs: dict[str, Any] = dict.fromkeys(kind._fields, tf.TensorSpec((None,), tf.float32))
    specs |= {"observations": observation_spec, "actions": action_spec, "progress": tf.TensorSpec((), tf.float32)}
    specs |= {"next_observations": observation_spec, "seeds": tf.TensorSpec((None, 2), tf.int32)}
    specs |= {} if replay else {"next_actions": action_spec}
    found: Batch | ReplayBatch = kind(**specs)
    return found


def check_credit(agent: Agent, credit: Any, like: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return a credit as tensors: by output, numbers of the output's shape or one number.

    Args:
        agent: for messages.
        credit: from `Agent.credit`.
        like: outputs whose shape and dtype a credit has, by name. Shapes of others are not looked at.

    Raises:
        ValueError: the credit is no mapping of such numbers. Shapes and dtypes are known before anything runs.
    """
    name = type(agent).__name__
    if not isinstance(credit, Mapping) or not credit:
        raise ValueError(f'{name}.credit returns a dict such as {{"log_prob": batch.advantages}}, got {credit!r}.')
    return {
        key: _check_numbers(f"{name}.credit[{key!r}]", c, like.get(key, _ANY), or_one=True) for key, c in credit.items()
    }


def check_estimates(agent: Agent, estimates: Any, like: tf.Tensor) -> Estimates:
    """Return estimates as tensors of the shape of `like`, float (T, N).

    Raises:
        ValueError: `Agent.estimate` returned something else than `Estimates` of such numbers.
    """
    name = f"{type(agent).__name__}.estimate"
    if not isinstance(estimates, Estimates):
        raise ValueError(f"{name} returns rlgrad.Estimates(returns, advantages, td_errors), got {estimates!r}.")
    pairs = estimates._asdict().items()
    return Estimates(**{key: _check_numbers(f"{name}'s {key}", x, like, or_one=False) for key, x in pairs})


_ANY = tf.TensorSpec(None, tf.float32)


def _check_numbers(name: str, x: Any, like: tf.Tensor | tf.TensorSpec, or_one: bool) -> tf.Tensor:
    try:
        x = x if tf.is_tensor(x) else tf.convert_to_tensor(x, like.dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no number and no tensor of numbers: got {x!r}.") from error
    if x.dtype != like.dtype:
        raise ValueError(f"{name} is {x.dtype.name} where {like.dtype.name} is expected: use tf.cast(…, tf.float32).")
    if not (x.shape.is_compatible_with(like.shape) or (or_one and x.shape.rank == 0)):
        each = "one number" if like.shape.rank == 1 else "the numbers of the output"
        rows = f"{each} for each row" + (", or one number for all" if or_one else "")
        raise ValueError(f"{name} has the shape {x.shape} where {like.shape} is expected: {rows}.")
    return x


class DryRun(NamedTuple):
    """The outputs an agent credits and the metrics it reports, found by tracing it once.

    Attributes:
        known: all outputs of the policy and of the agent.
        credited: the outputs whose gradients count, in the order of `known`.
        measured: names of what the agent measures.
        asked_of_target: names of the outputs that it asks of the target weights.
        action_values: the network is to say how good each Discrete action is.
        actor_critic: the critics of continuous actions, and how the policy is to say them; `None`: it needs neither.
    """

    known: tuple[str, ...]
    credited: tuple[str, ...]
    measured: tuple[str, ...]
    asked_of_target: tuple[str, ...] = ()
    action_values: bool = False
    actor_critic: ActorCritic | None = None


def outputs_of(agent: Agent, batch: Any) -> Mapping[str, Any]:
    """Return an agent's further outputs for a batch, which `Agent.outputs` says as a dict or as a method."""
    found = agent.outputs(batch) if callable(agent.outputs) else agent.outputs
    if not isinstance(found, Mapping):
        raise ValueError(f'{type(agent).__name__}.outputs is a dict such as {{"head": "head"}}, got {found!r}.')
    return found


def dry_run(
    agent: Agent,
    signature: Any,
    *,
    value: bool = True,
    num_actions: int = 0,
    event: tuple[int, ...] | None = None,
) -> DryRun:
    """Trace an agent's methods on abstract tensors, to learn which outputs it credits and what it measures.

    Args:
        agent: the agent.
        signature: a batch of `tf.TensorSpec`.
        value: True if there is a value, or can be.
        num_actions: of a Discrete space; 0: actions are of another kind.
        event: shape of an action of a Box; `None`: actions are of another kind.

    Raises:
        ValueError: `credit` reads an attribute or credits an output that does not exist, branches on a tensor, or returns
            something else than a mapping of numbers; or an output of the agent's own has a name that is taken.
    """
    name = type(agent).__name__

    def result_of(method: Callable[[Any], Any], what: str) -> Any:
        try:
            return trace(method, signature).structured_outputs
        except AttributeError as error:
            raise ValueError(f"{name}.{what}: {error}") from error
        except tf.errors.OperatorNotAllowedInGraphError as error:
            raise ValueError(
                f"{name}.{what} is traced once and compiled, so Python's `if`, `and`, `or`, `not` and `while` cannot "
                "read a tensor's numbers: write tf.where(condition, a, b), tf.maximum, or &, | and ~ instead."
            ) from error

    own: tuple[str, ...] = OUTPUTS if value else OUTPUTS[:-1]
    if agent.deterministic and event is not None:
        own = own[2:]  # an action that is certain has neither probability nor entropy
    further: list[str] = []
    result_of(lambda batch: further.extend(outputs_of(agent, batch)), "outputs")
    _require_new_names(agent, further)
    further = [*agent.scalars, *further]
    sketch = Sketch((*own, *further), agent, num_actions, event)

    def credit_of(batch: Any) -> dict[str, tf.Tensor]:
        now = sketch.of(batch)
        return check_credit(agent, agent.credit(batch, now), now.shapes)

    credit = result_of(credit_of, "credit")
    for key in (key for key in credit if key in ON_DEMAND):
        sketch.ask(key)
    if sketch.asks_action_values or ("q" in sketch.asked and agent.replay is None):
        sketch.require_discrete()  # of continuous actions q says no value of a state, which rollouts end with
        own = ACTION_VALUES
    else:
        own = (*own, *(key for key in ON_DEMAND if key in sketch.asked))
    known = (*own, *further)
    for key in credit:
        if key not in known:
            raise ValueError(f"{name}.credit credits an output {key!r} that does not exist. {close_names(key, known)}")
    measured = result_of(lambda batch: agent.measure(batch, sketch.of(batch)), "measure")
    if not isinstance(measured, Mapping):
        raise ValueError(f'{name}.measure returns a dict such as {{"ratio": ratio}}, got {measured!r}.')
    asked = tuple(dict.fromkeys(sketch.asked_of_target))
    if asked and agent.target is None:
        raise ValueError(f"{name} asks now.target and has no target weights: give it target=Target(rate=…, every=…).")
    credited = tuple(output for output in known if output in credit)
    return DryRun(known, credited, tuple(measured), asked, sketch.asks_action_values, _actor_critic(agent, sketch))


def _require_new_names(agent: Agent, further: Sequence[str]) -> None:
    """Raise a ValueError for an output or a scalar of an agent's own whose name is taken."""
    taken = {*OUTPUTS, *ON_DEMAND, "policy"}
    for where, names in (("scalars", agent.scalars), ("outputs", further)):
        for key in names:
            if key in taken:
                raise ValueError(
                    f"{type(agent).__name__}.{where} has {key!r}, which every policy has already: choose another name."
                )
            taken.add(key)


def _actor_critic(agent: Agent, sketch: Sketch) -> ActorCritic | None:
    """Return what the outputs that were asked for need of the networks of continuous actions."""
    if agent.critics_of_actions:
        return ActorCritic(agent.num_critics, "categorical", 0, agent.critic, agent.training_mode)
    if sketch.event is None or not sketch.asked & {*ON_DEMAND}:
        return None
    moves = bool(sketch.asked & {"action", "action_log_prob"})
    actor: Any = "deterministic" if agent.deterministic else "reparameterized" if moves else "gaussian"
    count = agent.num_critics if "q" in sketch.asked else 0
    return ActorCritic(count, actor, agent.quantiles or 0, agent.critic, agent.training_mode)


def require_free_names(agent: Agent, measured: Sequence[str], of_learner: Sequence[str]) -> None:
    """Raise a ValueError if the agent or its update reports something under a name that is logged already.

    Args:
        agent: has the update.
        measured: names of what the agent measures.
        of_learner: names of what the learner reports itself.
    """
    update = agent.update
    taken = {"entropy", "approx_kl", _NONFINITE, *of_learner, *(name.removeprefix("train/") for name in METRICS)}
    for owner, names in (
        (f"{type(update).__name__}.metrics names", update.metrics),
        (f"{type(agent).__name__}.measure returns", measured),
    ):
        clash = next((name for name in names if name in taken), None)
        if clash is not None:
            raise ValueError(f"{owner} {clash!r}, which is logged already: choose another name.")
        taken |= {*names}


def check_metrics(update: Update, metrics: Any, of_objective: Sequence[str]) -> Metrics:
    """Return what `Update.apply` returned.

    Args:
        update: for messages, and for the names that it promises.
        metrics: from `apply`.
        of_objective: names of the objective's own metrics.

    Raises:
        ValueError: it is no mapping of the names that the update promises.
    """
    expected = [*of_objective, *update.metrics, _NONFINITE]
    names = list(metrics) if isinstance(metrics, Mapping) else None
    if names is None or set(names) != set(expected):
        raise ValueError(
            f"{type(update).__name__}.apply returns a dict with the keys {', '.join(expected)}: the objective's own metrics, "
            f"those that {type(update).__name__}.metrics names, and {_NONFINITE} (−1, or the number of the first step that was "
            f"left out because it was not finite); got {metrics if names is None else ', '.join(names) or 'none'}."
        )
    return dict(metrics)
