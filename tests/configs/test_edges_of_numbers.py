"""Each number that a record checks: the outermost values that it takes, and the nearest that it refuses, naming the field."""

import math

import pytest

from rlgrad.agents import AWAC, C51, DQN, IMPALA, IQL, PPO, QRDQN, REDQ, SAC, TD3, TQC, DiscreteSAC, StreamAC
from rlgrad.policies import CriticNetwork
from rlgrad.replay import Exploration, Linear, Replay, Target
from rlgrad.updates import Ascent, NaturalGradient, PerHead, Traces, TrustRegion

TINY = 1e-9
SHARE = [0.0, 1.0], [-TINY, 1.0 + TINY]  # both ends are taken
POSITIVE = [TINY, 1e9], [0.0, -1.0]
OR_NONE = [None, *POSITIVE[0]], POSITIVE[1]
BETWEEN = [TINY, 1.0 - TINY], [0.0, 1.0]  # neither end is
BELOW_1 = [0.0, 1.0 - TINY], [-TINY, 1.0]
UP_TO_1 = [TINY, 1.0], [0.0, 1.0 + TINY]
NOT_NEGATIVE = [0.0, 1e9], [-TINY]


def count(most, least=1):
    return [least, most], [least - 1, most + 1]


# A record, options that the field needs, and by field the values that it takes and those that it refuses.
EDGES = [
    (
        Replay,
        {},
        {
            "batch_size": count(2**24),
            "n_steps": count(2**10),
            "frames": ([None, 2], [1]),
            "warmup": count(1_000_000, 0),
            "updates_per_step": ([TINY, 2**16], [0.0, 2**16 + 1]),
            "priority_exponent": SHARE,
            "importance_exponent": SHARE,
            "hindsight": SHARE,
        },
    ),
    (Replay, {"warmup": 0}, {"capacity": count(2**30)}),
    (Target, {}, {"rate": UP_TO_1, "every": count(2**30)}),
    (Linear, {}, {"over": UP_TO_1, "start": ([-1e9, 1e9], [math.inf]), "end": ([-1e9, 1e9], [-math.inf, math.nan])}),
    (Exploration, {}, {"random": SHARE, "noise": ([0.0, 1e9], [-TINY, math.inf])}),
    (
        Ascent,
        {"num_epochs": 2},
        {
            "num_epochs": count(2**20),
            "num_minibatches": count(2**24),
            "max_grad_norm": OR_NONE,
            "learning_rate": OR_NONE,
            "target_kl": OR_NONE,
        },
    ),
    (NaturalGradient, {}, {"damping": POSITIVE, "cg_iterations": count(2**20), "target_kl": POSITIVE}),
    (NaturalGradient, {"target_kl": None}, {"learning_rate": POSITIVE}),
    (
        TrustRegion,
        {},
        {
            "target_kl": POSITIVE,
            "damping": POSITIVE,
            "cg_iterations": count(2**20),
            "backtrack_factor": BETWEEN,
            "max_backtracks": count(2**20, 0),
        },
    ),
    (
        Traces,
        {},
        {
            "trace_decay": SHARE,
            "learning_rate": OR_NONE,
            "kappa": POSITIVE,
            "beta_2": BETWEEN,
            "epsilon": POSITIVE,
            "error_clip": OR_NONE,
        },
    ),
    (PerHead, {}, {"policy_every": count(2**20)}),
    (
        CriticNetwork,
        {},
        {
            "dropout": BELOW_1,
            "momentum": BELOW_1,
            "hidden_sizes": ([(), (1,), (2**16,), (8,) * 256], [(0,), (2**16 + 1,), (8,) * 257]),
        },
    ),
    (
        PPO,
        {},
        {
            "gamma": SHARE,
            "gae_lambda": SHARE,
            "num_envs": count(2**20),
            "num_steps": ([None, 1, 2**24], [0, 2**24 + 1]),
            "clip_range": POSITIVE,
            "value_clip_range": POSITIVE,
        },
    ),
    (PPO, {"num_steps": None}, {"episodes_per_env": count(2**20)}),
    (SAC, {}, {"num_critics": count(2**10)}),
    (REDQ, {}, {"subset": count(10)}),
    (TQC, {}, {"dropped": count(24, 0)}),
    (TQC, {"dropped": 0}, {"quantiles": ([2, 1000], [1])}),
    (DQN, {}, {"error_clip": OR_NONE}),
    (QRDQN, {}, {"quantiles": ([1, 1000], [0])}),
    (C51, {}, {"atoms": ([2, 1000], [1]), "support": ([(0.0, TINY)], [(1.0, 1.0), (1.0, 0.0)])}),
    (AWAC, {}, {"beta": POSITIVE, "max_weight": POSITIVE}),
    (IQL, {}, {"beta": POSITIVE, "max_weight": POSITIVE, "expectile": BETWEEN}),
    (IMPALA, {}, {"trace_limit": ([TINY, 1.0], [0.0]), "rho_limit": ([1.0, 1e9], [1.0 - TINY])}),
    (StreamAC, {}, {"entropy_coefficient": NOT_NEGATIVE}),
    (DiscreteSAC, {}, {"entropy_share": SHARE}),
    (TD3, {}, {"smoothing": NOT_NEGATIVE, "smoothing_clip": NOT_NEGATIVE}),
]


@pytest.mark.parametrize(
    ("record", "options", "field", "taken", "refused"),
    [(record, options, field, *edges) for record, options, fields in EDGES for field, edges in fields.items()],
    ids=[f"{record.__name__}.{field}" for record, _, fields in EDGES for field in fields],
)
def test_the_outermost_values_are_taken_and_the_next_ones_refused_by_the_name_of_the_field(
    record, options, field, taken, refused
):
    for value in taken:
        assert getattr(record(**(options | {field: value})), field) == value
    for value in refused:
        with pytest.raises(ValueError, match=field):
            record(**(options | {field: value}))
