"""One training step of Stable-Baselines3 and sb3-contrib themselves, beside what tests/helpers/peer_steps.py says that it is.

    python benchmarks/peers/one_step.py          # writes benchmarks/results/one-step.md

Each library's own `train()` runs on weights and a batch that it is given: its buffer's `get` or `sample` returns them. The
optimizers are those of PyTorch, and Stable-Baselines3's RMSpropTFLike, over five steps. Of CleanRL's PQN, which is a script,
the lines from its returns to its step stand below. Before that, the settings in tests/helpers/peer_settings.py are compared
with rl_zoo3's files and the libraries' defaults. Tests hold rlgrad to the same functions and settings
(tests/agents/test_steps_of_other_libraries.py).

Needs a virtual environment of its own: torch (CPU build), stable-baselines3, sb3-contrib, rl-zoo3, gymnasium.
"""

import copy
import inspect
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import rl_zoo3
import torch
import yaml
from gymnasium import Env, spaces
from sb3_contrib import QRDQN, TQC, TRPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.type_aliases import ReplayBufferSamples, RolloutBufferSamples

HERE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(HERE / "tests" / "helpers"))
import peer_settings  # noqa: E402
import peer_steps as by_numpy  # noqa: E402

PAGE = HERE / "benchmarks" / "results" / "one-step.md"
DISCRETE, BOX = spaces.Discrete(4), spaces.Box(-1.0, 1.0, (2,))
NUMBERS = by_numpy.numbers()
SMALL = {"policy_kwargs": {"net_arch": [5], "activation_fn": torch.nn.Tanh}, "device": "cpu"}
BOTH = {"policy_kwargs": {"net_arch": {"pi": [5], "vf": [5]}}, "device": "cpu"}
CRITIC = {"policy_kwargs": {"net_arch": [6], "activation_fn": torch.nn.Tanh}, "device": "cpu"}


class Nowhere(Env):
    """An environment that nobody steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,))

    def __init__(self, action_space):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}

    def step(self, action):
        raise NotImplementedError


class Plain:
    """torch.optim.SGD: what a step shows of the gradient is its direction and its size."""

    def __init__(self, rate):
        self.rate = rate

    def step(self, g):
        return -self.rate * g


def settings(base, plain, rate, own, **options):
    """The library's options, and NumPy's optimizer: its own, or plain descent."""
    given, rate = copy.deepcopy(base | options), 0.1 if plain else rate  # they write into policy_kwargs
    if plain:
        given["policy_kwargs"] |= {"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {}}
    return given | {"learning_rate": rate}, Plain(rate) if plain else own(rate)


def tensor(x):
    return torch.as_tensor(np.asarray(x, np.float32))


def give(module, weights):
    """Put [kernel, bias, …] into the linear layers of a module, in order."""
    layers = [m for m in module.modules() if isinstance(m, torch.nn.Linear)]
    for i, layer in enumerate(layers):
        layer.weight.data, layer.bias.data = tensor(weights[2 * i].T.copy()), tensor(weights[2 * i + 1])
    assert 2 * len(layers) == len(weights)


def taken(module):
    layers = [m for m in module.modules() if isinstance(m, torch.nn.Linear)]
    return [p.detach().numpy().astype(float) for layer in layers for p in (layer.weight.T, layer.bias)]


def optimizers_step(optimizer, before, *gradients, limit=None):
    """The weights after one step of a NumPy optimizer along the gradients, all of its weights clipped together."""
    together = [g for gradient in gradients for g in gradient]
    together = together if limit is None else by_numpy.clipped(together, limit)
    flat = np.concatenate([g.ravel() for g in together])
    ends = np.cumsum([g.size for g in together])[:-1]
    moves = [m.reshape(g.shape) for m, g in zip(np.split(optimizer.step(flat), ends), together, strict=True)]
    return [b + m for b, m in zip(before, moves, strict=True)]


def pair(policy):
    """A policy's two networks as modules."""
    pi = torch.nn.Sequential(policy.mlp_extractor.policy_net, policy.action_net)
    return pi, torch.nn.Sequential(policy.mlp_extractor.value_net, policy.value_net)


def on_policy(algorithm, given):
    model = algorithm("MlpPolicy", Nowhere(DISCRETE), **given)
    batch = NUMBERS["discrete"]
    fields = (batch["x"], batch["a"], np.zeros(12), batch["old_log_prob"], batch["advantages"], batch["returns"])
    model.rollout_buffer.get = lambda batch_size=None: iter([RolloutBufferSamples(*map(tensor, fields))])
    model.set_logger(Logger(None, []))
    pi, vf = pair(model.policy)
    give(pi, NUMBERS["theta"])
    give(vf, NUMBERS["phi"])
    model.train()
    return [*taken(pi), *taken(vf)]


def a2c(plain, optimizer, **options):
    before = [*NUMBERS["theta"], *NUMBERS["phi"]]
    for normalize in (False, True):
        gradients = by_numpy.a2c(
            *map(NUMBERS.get, ("theta", "phi", "discrete")), ent_coef=0.01, normalize_advantage=normalize
        )
        given, own = settings(
            BOTH | {"normalize_advantage": normalize}, plain, 7e-4, optimizer, ent_coef=0.01, **options
        )
        theirs, mine = on_policy(A2C, given), optimizers_step(own, before, *gradients, limit=0.5)
        yield theirs, mine, before


def ppo(plain):
    before = [*NUMBERS["theta"], *NUMBERS["phi"]]
    gradients = by_numpy.ppo(NUMBERS["theta"], NUMBERS["phi"], NUMBERS["discrete"], ent_coef=0.01)
    options = {"ent_coef": 0.01, "n_epochs": 1, "n_steps": 12, "batch_size": 12}
    given, own = settings(BOTH, plain, 3e-4, lambda rate: by_numpy.Adam(rate, eps=1e-5), **options)
    yield on_policy(PPO, given), optimizers_step(own, before, *gradients, limit=0.5), before


def trpo(plain):
    """Its value alone: a policy step begins conjugate gradients at random numbers."""
    options = {"n_critic_updates": 1, "n_steps": 12, "batch_size": 12}
    given, own = settings(BOTH, plain, 1e-3, lambda rate: by_numpy.Adam(rate, eps=1e-5), **options)
    gradient = by_numpy.of_square(NUMBERS["phi"], NUMBERS["discrete"]["x"], NUMBERS["discrete"]["returns"], 1.0)
    yield on_policy(TRPO, given)[4:], optimizers_step(own, NUMBERS["phi"], gradient), NUMBERS["phi"]


def samples(batch, actions):
    done = (batch["discounts"] == 0.0).astype(float)[:, None]
    columns = (batch["x"], actions, batch["after"], done, batch["rewards"][:, None])
    return ReplayBufferSamples(*map(tensor, columns))


def off_policy(model, batch, actions):
    model.set_logger(Logger(None, []))
    model.replay_buffer.sample = lambda size, env=None: samples(batch, actions)
    model.train(gradient_steps=1, batch_size=12)


def dqn(plain):
    given, own = settings(SMALL, plain, 1e-4, by_numpy.Adam)
    model, batch = DQN("MlpPolicy", Nowhere(DISCRETE), **given), NUMBERS["discrete"]
    give(model.q_net, NUMBERS["theta"])
    give(model.q_net_target, NUMBERS["target"])
    off_policy(model, batch, batch["a"][:, None])
    gradient = by_numpy.dqn(NUMBERS["theta"], NUMBERS["target"], batch)
    yield taken(model.q_net), optimizers_step(own, NUMBERS["theta"], gradient, limit=10.0), NUMBERS["theta"]


def by_quantile(weights, back=False):
    """The last layer's columns as sb3-contrib has them, (K, A) for (A, K), or the other way."""
    shape = (3, 4) if back else (4, 3)
    last = [w.reshape(*w.shape[:-1], *shape).swapaxes(-1, -2).reshape(w.shape) for w in weights[-2:]]
    return [*weights[:-2], *last]


def qrdqn(plain):
    base = SMALL | {"policy_kwargs": {**SMALL["policy_kwargs"], "n_quantiles": 3}, "batch_size": 32}
    given, own = settings(base, plain, 5e-5, lambda rate: by_numpy.Adam(rate, eps=0.01 / 32))
    model, batch = QRDQN("MlpPolicy", Nowhere(DISCRETE), **given), NUMBERS["discrete"]
    give(model.quantile_net, by_quantile(NUMBERS["quantiles"]))
    give(model.quantile_net_target, by_quantile(NUMBERS["quantile_target"]))
    off_policy(model, batch, batch["a"][:, None])
    gradient = by_numpy.qrdqn(NUMBERS["quantiles"], NUMBERS["quantile_target"], batch, 3)
    mine = optimizers_step(own, NUMBERS["quantiles"], gradient)
    yield by_quantile(taken(model.quantile_net), back=True), mine, NUMBERS["quantiles"]


def deterministic(plain, algorithm, count, **options):
    given, of_critics = settings(CRITIC, plain, 1e-3, by_numpy.Adam, **options)
    model, batch = algorithm("MlpPolicy", Nowhere(BOX), **given), NUMBERS["continuous"]
    for module, weights in ((model.actor, "actor"), (model.actor_target, "target_actor")):
        give(module.mu, NUMBERS[weights])
    for module, weights in ((model.critic, "critics"), (model.critic_target, "target_critics")):
        for network, own in zip(module.q_networks, NUMBERS[weights], strict=False):
            give(network, own)
    off_policy(model, batch, batch["a"])
    critics, targets = NUMBERS["critics"][:count], NUMBERS["target_critics"][:count]
    gradients = by_numpy.td3_critics(critics, targets, NUMBERS["target_actor"], batch)
    before = [w for critic in critics for w in critic]
    moved = optimizers_step(of_critics, before, *gradients)
    of_actor = settings(CRITIC, plain, 1e-3, by_numpy.Adam)[1]
    actor = optimizers_step(of_actor, NUMBERS["actor"], by_numpy.td3_actor(NUMBERS["actor"], moved[:4], batch))
    yield [w for network in model.critic.q_networks for w in taken(network)], moved, before
    yield taken(model.actor.mu), actor, NUMBERS["actor"]
    slow = [t + 0.005 * (w - t) for w, t in zip(moved[:4], targets[0], strict=True)]
    yield taken(model.critic_target.q_networks[0]), slow, targets[0]


def gaussian(plain, algorithm, names, of_critics, mean, base=CRITIC, **options):
    given, own = settings(base, plain, 3e-4, by_numpy.Adam, **options)
    model, batch = algorithm("MlpPolicy", Nowhere(BOX), **given), NUMBERS["continuous"]
    whole = NUMBERS["gaussian"]
    give(model.actor.latent_pi, whole[:2])
    give(model.actor.mu, [w[..., :2] for w in whole[2:]])
    give(model.actor.log_std, [w[..., 2:] for w in whole[2:]])
    for module, name in ((model.critic, names[0]), (model.critic_target, names[1])):
        for network, weights in zip(module.q_networks, NUMBERS[name], strict=True):
            give(network, weights)
    model.log_ent_coef.data.fill_(-0.5)
    drawn, normal = iter([batch["epsilon"], batch["epsilon_after"]]), torch.distributions.Normal.rsample
    torch.distributions.Normal.rsample = lambda self, shape=(): self.loc + self.scale * tensor(next(drawn))
    try:
        off_policy(model, batch, batch["a"])
    finally:
        torch.distributions.Normal.rsample = normal
    alpha, critics = float(np.exp(-0.5)), NUMBERS[names[0]]
    before = [w for critic in critics for w in critic]
    moved = optimizers_step(own, before, *of_critics(critics, NUMBERS[names[1]], whole, alpha, batch))
    yield [w for network in model.critic.q_networks for w in taken(network)], moved, before
    of_actor = by_numpy.sac_actor(whole, [moved[:4], moved[4:]], alpha, batch, mean=mean)
    actor = optimizers_step(settings(base, plain, 3e-4, by_numpy.Adam)[1], whole, of_actor)
    heads = [
        np.concatenate(both, axis=-1) for both in zip(taken(model.actor.mu), taken(model.actor.log_std), strict=True)
    ]
    yield [*taken(model.actor.latent_pi), *heads], actor, whole
    log_alpha = -0.5 + by_numpy.Adam(given["learning_rate"]).step(
        np.array(by_numpy.sac_temperature(whole, batch, -2.0))
    )
    yield [model.log_ent_coef.detach().numpy()], [log_alpha], [np.array(-0.5)]


def pqn(plain):
    """The lines of cleanrl/pqn.py, from its returns to its step."""
    batch, module = (
        NUMBERS["discrete"],
        torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4)),
    )
    give(module, NUMBERS["theta"])
    rate = 0.1 if plain else 2.5e-4
    optimizer = (torch.optim.SGD if plain else torch.optim.RAdam)(module.parameters(), lr=rate)
    values = module(tensor(batch["x"])).max(dim=-1)[0].detach()
    returns, rewards = torch.zeros(11), tensor(batch["rewards"])
    for t in reversed(range(11)):
        if t == 10:
            returns[t] = rewards[t] + 0.99 * values[11]
        else:
            returns[t] = rewards[t] + 0.99 * (0.65 * returns[t + 1] + (1 - 0.65) * values[t + 1] * 1.0)
    old_val = module(tensor(batch["x"][:11])).gather(1, torch.as_tensor(batch["a"][:11])[:, None]).squeeze()
    loss = torch.nn.functional.mse_loss(returns, old_val)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), 10.0)
    optimizer.step()
    v = by_numpy.network(NUMBERS["theta"], batch["x"])[0].max(-1)
    goals = by_numpy.pqn_returns(batch["rewards"][:11], v[:11], v[11], 0.99, 0.65)
    gradient = by_numpy.pqn(NUMBERS["theta"], {"x": batch["x"][:11], "a": batch["a"][:11], "returns": goals})
    own = (Plain if plain else by_numpy.RAdam)(rate)
    yield taken(module), optimizers_step(own, NUMBERS["theta"], gradient, limit=10.0), NUMBERS["theta"]


def advantages():
    rng, buffer = np.random.default_rng(1), RolloutBuffer(8, BOX, DISCRETE, gae_lambda=0.9, gamma=0.97, n_envs=1)
    for name in ("rewards", "values"):
        setattr(buffer, name, rng.normal(size=(8, 1)).astype(np.float32))
    buffer.episode_starts = np.array([1, 0, 0, 1, 0, 0, 0, 1], np.float32)[:, None]
    buffer.advantages = np.zeros((8, 1), np.float32)
    buffer.compute_returns_and_advantage(torch.tensor([0.7]), np.array([0.0]))
    columns = (buffer.rewards[:, 0], buffer.values[:, 0], buffer.episode_starts[:, 0])
    mine = by_numpy.advantages(*columns, 0.7, 0.0, 0.97, 0.9)
    yield [buffer.advantages[:, 0], buffer.returns[:, 0]], list(mine), [np.zeros(8), np.zeros(8)]


def five_steps(theirs, mine, rate, **options):
    p, x = torch.nn.Parameter(torch.zeros(6)), np.zeros(6)
    optimizer, numpys = theirs([p], lr=rate, **options), mine(rate, **options)
    for seed in range(5):
        g = by_numpy.numbers(seed)["phi"][0].ravel()[:6] * np.array([1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5])
        p.grad = tensor(g)
        optimizer.step()
        x = x + numpys.step(g)
    yield [p.detach().numpy()], [x], [np.zeros(6)]


ALONE = {
    "torch Adam, eps 1e-8": lambda: five_steps(torch.optim.Adam, by_numpy.Adam, 1e-3, eps=1e-8),
    "torch Adam, eps 1e-5": lambda: five_steps(torch.optim.Adam, by_numpy.Adam, 1e-3, eps=1e-5),
    "torch RAdam": lambda: five_steps(torch.optim.RAdam, by_numpy.RAdam, 1e-3, eps=1e-8),
    "torch RMSprop, alpha 0.99, eps 1e-5": lambda: five_steps(
        torch.optim.RMSprop, by_numpy.RMSprop, 7e-4, alpha=0.99, eps=1e-5
    ),
    "SB3 RMSpropTFLike, alpha 0.99, eps 1e-5": lambda: five_steps(
        RMSpropTFLike, by_numpy.RMSpropTFLike, 7e-4, alpha=0.99, eps=1e-5
    ),
    "SB3 RolloutBuffer, GAE": advantages,
}
TF_LIKE = {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}}
SAC_CRITICS, TQC_CRITICS = ("critics", "target_critics"), ("quantile_critics", "target_quantile_critics")
STEPS = {
    "SB3 A2C, RMSprop": lambda plain: a2c(plain, lambda rate: by_numpy.RMSprop(rate, eps=1e-5)),
    "SB3 A2C, RMSpropTFLike": lambda plain: a2c(
        plain, lambda rate: by_numpy.RMSpropTFLike(rate, eps=1e-5), policy_kwargs=BOTH["policy_kwargs"] | TF_LIKE
    ),
    "SB3 PPO": ppo,
    "sb3-contrib TRPO, value": trpo,
    "SB3 DQN": dqn,
    "sb3-contrib QR-DQN": qrdqn,
    "SB3 DDPG": lambda plain: deterministic(plain, DDPG, 1),
    "SB3 TD3, policy_delay 1": lambda plain: deterministic(plain, TD3, 2, policy_delay=1, target_policy_noise=0.0),
    "SB3 SAC": lambda plain: gaussian(plain, SAC, SAC_CRITICS, by_numpy.sac_critics, False),
    "sb3-contrib TQC": lambda plain: gaussian(
        *(plain, TQC, TQC_CRITICS, lambda *a: by_numpy.tqc_critics(*a, dropped=1), True),
        base=CRITIC | {"policy_kwargs": CRITIC["policy_kwargs"] | {"n_quantiles": 4}},
        top_quantiles_to_drop_per_net=1,
    ),
    "CleanRL PQN": pqn,
}
HEAD = """\
# One step of the libraries themselves, and of tests/helpers/peer_steps.py

The largest difference between a weight after the library's step and after NumPy's, as a share of the largest move of a weight
in this step (of GAE: of the largest advantage); where several networks move, the worst of them. Once with the library's own
optimizer, and once with plain descent in its place, which shows the gradient's size too. The libraries compute in float32, in
which a weight of 1 ends at 6e-8. The settings in tests/helpers/peer_settings.py are those of the libraries named below.

    python benchmarks/peers/one_step.py

"""


ALGORITHMS = {"a2c": A2C, "ppo": PPO, "dqn": DQN, "qrdqn": QRDQN, "sac": SAC, "td3": TD3, "tqc": TQC}
NETWORKS = {"sac": [256, 256], "tqc": [256, 256], "td3": [400, 300]}


def check_settings():
    """Compare the settings that were copied with their sources."""
    for name, (source, copied, _) in peer_settings.SETTINGS.items():
        algorithm, env_id = source
        defaults = inspect.signature(ALGORITHMS[algorithm]).parameters
        theirs = {key: value.default for key, value in defaults.items()} | {"n_envs": 1, "n_quantiles": 25}
        theirs["net_arch"] = NETWORKS.get(algorithm)
        if env_id:
            table = yaml.safe_load((Path(rl_zoo3.__file__).parent / "hyperparams" / f"{algorithm}.yml").read_text())
            theirs |= table[env_id]
            inner = theirs["policy_kwargs"] or "dict()"
            theirs |= eval(
                inner, {"dict": dict, "RMSpropTFLike": RMSpropTFLike, "nn": torch.nn}
            )  # the zoo's own notation
        for key, value in copied.items():
            assert theirs[key] == value, f"{name}: {key} is {theirs[key]}, not {value}"


def worst(found):
    """The largest difference of a part, by its largest move."""
    parts = [
        [max(np.abs(a - b).max() for a, b in zip(*two, strict=True)) for two in ((theirs, mine), (mine, before))]
        for theirs, mine, before in found
    ]
    for apart, moved in parts:
        assert apart < 5e-3 * moved, parts
    return max(
        f"{apart / moved:.0e} of {moved:.0e}" for apart, moved in parts if apart / moved == max(a / m for a, m in parts)
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    check_settings()
    rows = ["| step | its own optimizer | plain descent |", "|---|---|---|"]
    for name, case in (ALONE | STEPS).items():
        both = [worst(case())] if name in ALONE else [worst(case(plain)) for plain in (False, True)]
        rows.append(f"| {name} | {' | '.join([*both, ''][:2])} |")
        print(rows[-1], flush=True)
    versions = ", ".join(f"{p} {version(p)}" for p in ("stable-baselines3", "sb3-contrib", "rl-zoo3", "torch"))
    PAGE.write_text(HEAD + "\n".join(rows) + f"\n\n{versions}\n")
