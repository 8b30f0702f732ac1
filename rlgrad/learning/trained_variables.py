"""The variables that an agent trains: those behind the outputs that it credits, and behind those it asks of target weights."""

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from rlgrad import gradients
from rlgrad.agent import Agent
from rlgrad.core.tensorflow_internals import trace
from rlgrad.data import Batch
from rlgrad.distributions import Deterministic, DiagonalGaussian
from rlgrad.gradients.questions.selection import keys_of
from rlgrad.learning.contract import DryRun
from rlgrad.learning.objective import output_specs, question
from rlgrad.policies.policy import Policy
from rlgrad.policies.recurrent import RecurrentPolicy


def kind_of_actions(policy: Policy) -> dict[str, Any]:
    """Return what a dry run is to know of a policy's actions: `num_actions` of Discrete ones, or `event`, a Box's shape."""
    distribution: Any = policy.distribution
    is_box = isinstance(distribution, DiagonalGaussian | Deterministic)
    return {
        "num_actions": getattr(distribution, "num_actions", None) or 0,
        "event": tuple(policy.action_spec.shape[1:]) if is_box else None,
    }


def require_same_kind(agent: Agent, policy: Policy, traced: DryRun) -> None:
    """Raise a ValueError if the policy's network says something else than the agent learns, or has a memory beside a replay."""
    if traced.action_values != policy.says_action_values:
        wants = "how good each action is (it credits q)" if traced.action_values else "how likely each action is"
        raise ValueError(
            f"{type(agent).__name__} learns {wants}, and the policy's network says something else: build it with "
            f"make_policy(…, action_values={'agent.action_values' if traced.action_values else None})."
        )
    wanted = traced.actor_critic.num_critics if traced.actor_critic else 0
    if len(policy.critics) != wanted:
        raise ValueError(
            f"{type(agent).__name__} learns from {wanted or 'no'} critics of actions, and the policy has "
            f"{len(policy.critics) or 'none'}: build it with make_policy(…, actor_critic=ActorCritic(…))."
        )
    if agent.training_mode and not policy.critics:
        raise ValueError(
            f"{type(agent).__name__}.training_mode is of critics of actions, and it has none: its network always runs as at "
            "inference. Leave it out."
        )
    if agent.replay is not None and isinstance(policy, RecurrentPolicy):
        raise ValueError(
            f"{type(agent).__name__} learns from single steps of a replay, and a memory needs sequences: leave the memory out, "
            "or take an agent without a replay, such as pqn."
        )


def variables_behind(agent: Agent, policy: Policy, asked: Sequence[str]) -> dict[str, keras.Variable]:
    """Return the variables behind outputs that target weights are asked for, by the names of `Outputs.at`; by their keys."""
    renamed = {"q_values": "q", "expected": "q", "action_log_prob": "action"}
    names = dict.fromkeys(renamed.get(name, name) for name in asked)
    mine = {id(v) for v in connected(agent, policy, tuple(names))[0]}
    return {key: variable for variable, key in keys_of(policy) if id(variable) in mine}


def connected(
    agent: Agent, policy: Policy, credited: Sequence[str]
) -> tuple[list[keras.Variable], dict[str, list[keras.Variable]]]:
    """Return the variables that at least one credited output depends on, and those of each output."""

    def gradient_of_each() -> dict[str, Any]:
        batch = _zero_batch(policy)
        model, inputs = question(policy, batch, credited)
        at_theta = gradients.linearize(model, inputs, output=output_specs(agent, policy, batch, credited))
        by_output: dict[str, Any] = {name: {} for name in credited}
        for name in credited:
            with contextlib.suppress(gradients.DisconnectedGradientError):  # all its weights are frozen
                by_output[name] = at_theta.gradient({name: 1.0})
        if not any(by_output.values()):
            at_theta.gradient()  # raises: nothing can be trained
        return by_output

    by_output = trace(gradient_of_each).structured_outputs  # traced and never run: it needs no numbers
    by_any = {key for behind in by_output.values() for key in behind}
    keyed = keys_of(policy)
    return (
        [variable for variable, key in keyed if key in by_any],
        {name: [variable for variable, key in keyed if key in by_output[name]] for name in credited},
    )


def _zero_batch(policy: Policy) -> Batch:
    """Return a batch of one row of zeros, for what depends on its shapes alone."""
    number = tf.zeros((1,))
    batch = Batch(**dict.fromkeys(Batch._fields, number))
    return batch._replace(
        observations=policy.zeros(1),
        actions=policy.zero_actions(1),
        next_observations=policy.zeros(1),
        seeds=tf.zeros((1, 2), tf.int32),
        progress=tf.zeros(()),
    )


def layers_of(policy: Policy, variables: Sequence[keras.Variable]) -> list[str]:
    """Return the layers of some of a policy's variables, named as `gradients.by_layer` names them."""
    mine = {id(variable) for variable in variables}
    return list(gradients.by_layer({key: v for v, key in keys_of(policy) if id(v) in mine}))
