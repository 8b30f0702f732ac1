"""What a learner keeps beside the weights is no weight: no optimizer that takes what is trainable may move it."""

from dataclasses import replace

import pytest
from helpers.by_hand import policy_of
from helpers.values import policy_for

import rlgrad
from rlgrad.agents import A2C, DQN, StreamSARSA
from rlgrad.replay import Replay
from rlgrad.updates import Ascent, PerHead, Traces

MEMORY = Replay(capacity=64, batch_size=4, warmup=4)
AGENTS = {
    "statistics of rewards, and a turn of the policy": (
        A2C(
            num_envs=2, num_steps=4, scale_rewards=True, update=PerHead(policy=Ascent(), value=Ascent(), policy_every=2)
        ),
        lambda agent: policy_of("discrete", normalize_observations=True),
    ),
    "a replay by priorities, and slow copies": (DQN(replay=replace(MEMORY, prioritized=True)), policy_for),
    "a uniform replay": (DQN(replay=MEMORY), policy_for),
    "traces, and actions decided ahead": (StreamSARSA(update=Traces(step="adaptive_obgd")), policy_for),
}


@pytest.mark.parametrize(("agent", "make"), AGENTS.values(), ids=AGENTS)
def test_what_is_kept_beside_the_weights_is_not_trainable(agent, make):
    policy = make(agent)
    learner = rlgrad.Learner(agent, policy, num_envs=agent.num_envs, xla=False)
    weights = {id(variable) for variable in policy.trainable_variables}
    memories = [variable for group in learner.memories.values() for variable in group]
    kept = [*policy.variables, *learner.state.slots, *memories]
    assert len(kept) > len(policy.trainable_variables)
    assert [v.name for v in kept if v.trainable and id(v) not in weights] == []
