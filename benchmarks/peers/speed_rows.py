"""The rows of benchmarks/speed.py: what is trained, against whom, how each side may be set, and what is aimed at."""

from dataclasses import dataclass, field
from typing import Any

Settings = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A bound on ours ÷ the peer's (`relative`) or on our number itself."""

    metric: str
    sign: str  # "≥" or "≤"
    bound: float
    relative: bool = True

    def met(self, ours: float, theirs: float | None) -> bool | None:
        """Return True if the target is met; `None` if the peer was not measured."""
        if self.relative and theirs is None:
            return None
        value = ours / theirs if self.relative and theirs is not None else ours
        return value >= self.bound if self.sign == "≥" else value <= self.bound


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        work: what is trained, in words.
        peer: whom it is held against, or nobody.
        side: the script of the peer under benchmarks/peers, without `speed_` and `.py`.
        training: what both sides are told, apart from how they run it.
        ours: settings of rlgrad that may be chosen freely; the fastest in the qualifying round is measured.
        theirs: likewise for the peer.
        targets: what is aimed at.
        repeats: how often it is measured.
        metrics: what the table shows of it.
    """

    work: str
    peer: str | None
    side: str | None
    training: Settings
    ours: tuple[Settings, ...]
    theirs: tuple[Settings, ...] = ()
    targets: tuple[Target, ...] = ()
    repeats: int = 5
    metrics: tuple[str, ...] = field(default=("steady", "whole"))


SYNC, ASYNC, VECTOR = ({"vectorization_mode": mode} for mode in ("sync", "async", "vector_entry_point"))
AS_IT_COMES: Settings = {}  # what `rlgrad.train` chooses by itself

# The authors of Stable-Baselines3 advise one thread for small networks; two are tried as well.
ONE, TWO = {"vec": "dummy", "threads": 1}, {"vec": "dummy", "threads": 2}
PROCESSES = {"vec": "subproc", "threads": 1}

# What takes microseconds a step may be faster where no other core has to be woken.
ONE_CORE, PEER_ONE_CORE = {**VECTOR, "cores": 1}, {**ONE, "cores": 1}

# One thread for XLA's matrix products saves their hand-over, which is most of the time where they are small.
XLA = ({"flags": ""}, {"flags": "--xla_cpu_multi_thread_eigen=false"})

A2C: Settings = {"agent": "a2c", "gamma": 0.99, "gae_lambda": 1.0, "learning_rate": 7e-4}
PPO: Settings = {"agent": "ppo", "gamma": 0.99, "gae_lambda": 0.95, "learning_rate": 3e-4}
ZOO: Settings = {
    **PPO,
    "env": "CartPole-v1",
    "num_envs": 8,
    "num_steps": 32,
    "gamma": 0.98,
    "gae_lambda": 0.8,
    "learning_rate": 1e-3,
    "linear": ("learning_rate", "clip"),
    "epochs": 20,
    "minibatches": 1,
}
CLEANRL: Settings = {
    **PPO,
    "env": "CartPole-v1",
    "num_envs": 4,
    "num_steps": 128,
    "learning_rate": 2.5e-4,
    "linear": ("learning_rate",),
    "epochs": 4,
    "minibatches": 4,
    "entropy": 0.01,
    "value_coefficient": 0.5,
    "value_clip": "cleanrl",
    "steps": 40_960,
}
DEFAULT_PPO: Settings = {**PPO, "num_envs": 8, "num_steps": 256, "epochs": 10, "minibatches": 32, "steps": 20_480}
PUREJAXRL: Settings = {**CLEANRL, "num_envs": 64, "num_steps": 64, "steps": 1_024_000}
# With a replay: `updates` gradient steps after each `num_steps` of one environment, copies moved by `target` (rate, every).
REPLAY: Settings = {"num_envs": 1, "gamma": 0.99, "capacity": 100_000, "warmup": 1_000}
DQN: Settings = {
    **REPLAY,
    "agent": "dqn",
    "env": "CartPole-v1",
    "num_steps": 256,
    "updates": 128,
    "batch": 64,
    "learning_rate": 2.3e-3,
    "target": (1.0, 128),
    "random": (1.0, 0.04, 0.16),
    "hidden": (256, 256),
    "steps": 50_176,
}
SAC: Settings = {
    **REPLAY,
    "agent": "sac",
    "env": "Pendulum-v1",
    "num_steps": 1,
    "updates": 1,
    "batch": 256,
    "learning_rate": 3e-4,
    "target": (0.005, 1),
    "hidden": (256, 256),
    "steps": 4_000,
}
# Everything as in the paper, one environment, an update at every step.
STREAM: Settings = {
    "agent": "stream-ac",
    "num_envs": 1,
    "num_steps": 1,
    "gamma": 0.99,
    "trace_decay": 0.8,
    "kappa": (3.0, 2.0),
    "entropy": 0.01,
    "hidden": (128, 128),
}
SOLVING = ("seconds", "compiled_seconds", "shell_seconds", "steps")

ROWS: dict[str, Row] = {
    "1": Row(
        "CartPole-v1, A2C, 8 × 5",
        "SB3 A2C",
        "sb3",
        {**A2C, "env": "CartPole-v1", "num_envs": 8, "num_steps": 5, "steps": 100_000},
        (SYNC, VECTOR, ONE_CORE),
        (ONE, TWO, PROCESSES, PEER_ONE_CORE),
        (Target("steady", "≥", 3.0),),
    ),
    "2": Row(
        "CartPole-v1, A2C, 64 × 16",
        "SB3 A2C",
        "sb3",
        {**A2C, "env": "CartPole-v1", "num_envs": 64, "num_steps": 16, "steps": 204_800},
        (SYNC, VECTOR, ONE_CORE),
        (ONE, TWO, PROCESSES, PEER_ONE_CORE),
        (Target("steady", "≥", 5.0),),
    ),
    "3": Row(
        "CartPole-v1, PPO with the zoo's settings: 8 × 32, 20 epochs, 1 minibatch",
        "SB3 PPO",
        "sb3",
        {**ZOO, "steps": 51_200},
        (SYNC, VECTOR, ONE_CORE),
        (ONE, TWO, PROCESSES, PEER_ONE_CORE),
        (Target("steady", "≥", 8.0),),
    ),
    "4": Row(
        "LunarLander-v3, PPO, 8 × 256, 10 epochs, 32 minibatches",
        "SB3 PPO",
        "sb3",
        {**DEFAULT_PPO, "env": "LunarLander-v3", "collecting": True},
        (SYNC, ASYNC),
        (ONE, TWO, PROCESSES),
        (Target("steady", "≥", 2.0), Target("share", "≥", 0.7, relative=False)),
        metrics=("steady", "whole", "share"),
    ),
    "5": Row(
        "HalfCheetah-v5, PPO, 8 × 256, 10 epochs, 32 minibatches",
        "SB3 PPO",
        "sb3",
        {**DEFAULT_PPO, "env": "HalfCheetah-v5", "collecting": True},
        (SYNC, ASYNC),
        (ONE, TWO, PROCESSES),
        (Target("steady", "≥", 2.0), Target("share", "≥", 0.7, relative=False)),
        metrics=("steady", "whole", "share"),
    ),
    "6": Row(
        "CartPole-v1, PPO, 4 × 128, 4 epochs, 4 minibatches",
        "CleanRL ppo.py",
        "cleanrl",
        CLEANRL,
        (SYNC, VECTOR),
        ({"threads": 1}, {"threads": 2}),
        (Target("steady", "≥", 1.0),),
    ),
    "6-envpool": Row(
        "the same, EnvPool's CartPole-v1 on both sides",
        "CleanRL ppo.py",
        "cleanrl",
        {**CLEANRL, "envpool": True},
        (AS_IT_COMES,),
        ({"threads": 1}, {"threads": 2}),
        (Target("steady", "≥", 1.0),),
    ),
    "7": Row(
        "ALE/Pong-v5, A2C, 8 × 5, Nature CNN",
        "SB3 A2C",
        "sb3",
        {
            **A2C,
            "env": "ALE/Pong-v5",
            "atari": True,
            "num_envs": 8,
            "num_steps": 5,
            "entropy": 0.01,
            "shared_trunk": True,
            "steps": 12_000,
        },
        (SYNC, ASYNC, VECTOR),
        (ONE, TWO, PROCESSES, {"vec": "subproc", "threads": 2}),
        (Target("steady", "≥", 1.5),),
    ),
    "8": Row(
        "CartPole, compiled, PPO, 64 × 64, 4 epochs, 4 minibatches",
        "PureJaxRL (gymnax)",
        "purejaxrl",
        {**PUREJAXRL, "env": "rlgrad/CartPole-v1", "peer_env": "CartPole-v1"},
        XLA,
        XLA,
        (Target("steady", "≥", 1.5), Target("compile", "≤", 1.0)),
        metrics=("steady", "whole", "compile"),
    ),
    "9": Row(
        "MinAtar Breakout, compiled, PPO, 64 × 128, 4 epochs, 8 minibatches, CNN",
        "PureJaxRL (gymnax)",
        "purejaxrl",
        {
            **PUREJAXRL,
            "env": "rlgrad/Breakout-v1",
            "peer_env": "Breakout-MinAtar",
            "cnn": True,
            "num_steps": 128,
            "minibatches": 8,
            "learning_rate": 5e-4,
            "steps": 65_536,
        },
        (AS_IT_COMES,),
        ({"flags": "", "convolution": "flax"}, {"flags": "", "convolution": "patches"}),
        (Target("steady", "≥", 1.2), Target("compile", "≤", 1.0)),
        metrics=("steady", "whole", "compile"),
    ),
    "10": Row(
        "CartPole, compiled, to a greedy return of 475, PPO as in cartpole-compiled",
        None,
        None,
        {
            **PPO,
            "env": "rlgrad/CartPole-v1",
            "num_envs": 16,
            "num_steps": 64,
            "gamma": 0.98,
            "gae_lambda": 0.9,
            "learning_rate": 5e-3,
            "linear": ("learning_rate",),
            "epochs": 4,
            "minibatches": 4,
            "steps": 75_000,
            "solve": True,
        },
        (AS_IT_COMES,),
        targets=(
            Target("compiled_seconds", "≤", 0.5, relative=False),
            Target("shell_seconds", "≤", 15.0, relative=False),
        ),
        repeats=10,
        metrics=SOLVING,
    ),
    "11": Row(
        "CartPole-v1 to a greedy return of 475, PPO with the zoo's settings",
        "SB3 PPO",
        "sb3",
        {**ZOO, "steps": 100_096, "solve": True},
        (VECTOR,),
        (ONE,),
        (Target("compiled_seconds", "≤", 1 / 8), Target("shell_seconds", "≤", 1 / 3)),
        repeats=10,
        metrics=SOLVING,
    ),
    "12": Row(
        "CartPole-v1, DQN with the zoo's settings: 128 updates of 64 after 256 steps, 256-256",
        "SB3 DQN",
        "sb3",
        DQN,
        (AS_IT_COMES,),
        ({"vec": "dummy", "threads": 1},),
        (Target("steady", "≥", 8.0),),
        repeats=3,
    ),
    "13": Row(
        "Pendulum-v1, SAC: an update of 256 after each step, 256-256",
        "SB3 SAC",
        "sb3",
        SAC,
        (AS_IT_COMES,),
        ({"vec": "dummy", "threads": 1}, {"vec": "dummy", "threads": 2}),
        (Target("steady", "≥", 2.5),),
        repeats=3,
    ),
    "14": Row(
        "Pendulum-v1, SAC: an update of 256 after each step, 64-64",
        "SB3 SAC",
        "sb3",
        {**SAC, "hidden": (64, 64)},
        (AS_IT_COMES,),
        ({"vec": "dummy", "threads": 1},),
        (Target("steady", "≥", 8.0),),
        repeats=3,
    ),
    "15": Row(
        "HalfCheetah-v5, Stream AC(λ): one environment, an update at every step, 128-128",
        "the authors' code",
        "streaming",
        {**STREAM, "env": "HalfCheetah-v5", "peer_env": "HalfCheetah-v5", "continuous": True, "steps": 2_000},
        (AS_IT_COMES,),
        ({"threads": 1},),
        (Target("steady", "≥", 4.0),),
    ),
    "16": Row(
        "CartPole, compiled, Stream AC(λ), likewise; the authors' on Gymnasium's",
        "the authors' code",
        "streaming",
        {
            **STREAM,
            "env": "rlgrad/CartPole-v1",
            "peer_env": "CartPole-v1",
            "continuous": False,
            "steps": 50_000,
            "peer_steps": 2_000,
        },
        (AS_IT_COMES,),
        ({"threads": 1},),
        (Target("steady", "≥", 50.0),),
    ),
}
