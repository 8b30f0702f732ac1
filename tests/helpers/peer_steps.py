"""One gradient and one optimizer step of Stable-Baselines3, sb3-contrib, rl_zoo3 and CleanRL, in NumPy float64.

Written from their sources, with PyTorch's optimizers. benchmarks/peers/one_step.py runs the libraries themselves on the numbers
below and compares: what stands here is what they do. Neither TensorFlow nor rlgrad is needed to import it.

Weights are [kernel, bias, …, kernel, bias] with kernels (in, out) and tanh between. Gradients are of losses: they descend.
"""

import itertools

import numpy as np


def network(weights, x):
    """The outputs, and what each layer was given."""
    inputs = []
    for i in range(0, len(weights), 2):
        inputs.append(x)
        x = x @ weights[i] + weights[i + 1]
        if i + 2 < len(weights):
            x = np.tanh(x)
    return x, inputs


def pulled_back(weights, x, cotangent):
    """Σ_n cotangent_n · ∂(outputs of row n) by the weights, and by x."""
    _, inputs = network(weights, x)
    found = []
    for i in reversed(range(len(inputs))):
        found = [inputs[i].T @ cotangent, cotangent.sum(0), *found]
        cotangent = cotangent @ weights[2 * i].T
        if i:
            cotangent = cotangent * (1.0 - inputs[i] ** 2)
    return found, cotangent


def clipped(gradient, limit):
    """torch.nn.utils.clip_grad_norm_: g · min(1, limit / (‖g‖ + 1e-6))."""
    length = np.sqrt(sum((g**2).sum() for g in gradient))
    return [g * min(1.0, limit / (length + 1e-6)) for g in gradient]


class Adam:
    """torch.optim.Adam: m̂ / (√v̂ + eps), both corrected for their start at 0 before eps is added."""

    def __init__(self, rate, eps=1e-8, betas=(0.9, 0.999)):
        self.rate, self.eps, self.betas, self.steps = rate, eps, betas, 0
        self.mean = self.squares = 0.0

    def step(self, g):
        self.steps += 1
        b1, b2 = self.betas
        self.mean, self.squares = b1 * self.mean + (1 - b1) * g, b2 * self.squares + (1 - b2) * g**2
        mean, root = self.mean / (1 - b1**self.steps), np.sqrt(self.squares / (1 - b2**self.steps))
        return -self.rate * mean / (root + self.eps)


class RAdam(Adam):
    """torch.optim.RAdam: while the variance of the root is not tractable, the corrected mean alone; then Adam, rectified."""

    def step(self, g):
        adam = super().step(g)
        b1, b2 = self.betas
        longest, power = 2 / (1 - b2) - 1, b2**self.steps
        length = longest - 2 * self.steps * power / (1 - power)
        mean = self.mean / (1 - b1**self.steps)
        if length <= 5:
            return -self.rate * mean
        share = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
        del adam  # its eps is added before the correction here
        return -self.rate * mean * np.sqrt(share) * np.sqrt(1 - power) / (np.sqrt(self.squares) + self.eps)


class RMSprop:
    """torch.optim.RMSprop: v from 0, and eps beside the root."""

    def __init__(self, rate, alpha=0.99, eps=1e-8):
        self.rate, self.alpha, self.eps, self.squares = rate, alpha, eps, 0.0

    def step(self, g):
        self.squares = self.alpha * self.squares + (1 - self.alpha) * g**2
        return -self.rate * g / self.root()

    def root(self):
        return np.sqrt(self.squares) + self.eps


class RMSpropTFLike(RMSprop):
    """stable_baselines3.common.sb2_compat.rmsprop_tf_like: v from 1, and eps inside of the root."""

    def __init__(self, rate, alpha=0.99, eps=1e-8):
        super().__init__(rate, alpha, eps)
        self.squares = 1.0

    def root(self):
        return np.sqrt(self.squares + self.eps)


def advantages(rewards, values, starts, last_value, last_done, gamma, gae_lambda):
    """RolloutBuffer.compute_returns_and_advantage, of one environment: Â, and Â + v, each (T,).

    Args:
        rewards: (T,). Where time ran out, `collect_rollouts` has added γ v(final observation).
        values: v(s_t), (T,).
        starts: 1 where step t is the first one of an episode, (T,).
        last_value: v of the state after the last step.
        last_done: 1 if the last step ended an episode.
        gamma: γ.
        gae_lambda: λ.
    """
    found, following = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        last = t == len(rewards) - 1
        goes_on = 1.0 - (last_done if last else starts[t + 1])
        delta = rewards[t] + gamma * (last_value if last else values[t + 1]) * goes_on - values[t]
        found[t] = following = delta + gamma * gae_lambda * goes_on * following
    return found, found + values


def normalized(x):
    """(x − mean) / (std + 1e-8), with PyTorch's std: it divides by n − 1."""
    return (x - x.mean()) / (x.std(ddof=1) + 1e-8)


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def log_prob(theta, x, a):
    return log_softmax(network(theta, x)[0])[np.arange(len(x)), a]


def of_log_prob(theta, x, a, c):
    """Σ_n c_n ∇ log π(a_n|s_n) of a softmax."""
    logits, _ = network(theta, x)
    return pulled_back(theta, x, c[:, None] * (np.eye(logits.shape[1])[a] - np.exp(log_softmax(logits))))[0]


def of_entropy(theta, x, c):
    logits, _ = network(theta, x)
    log_pi = log_softmax(logits)
    entropy = -(np.exp(log_pi) * log_pi).sum(-1, keepdims=True)
    return pulled_back(theta, x, -c[:, None] * np.exp(log_pi) * (log_pi + entropy))[0]


def of_square(phi, x, goal, factor):
    """The gradient of factor · mean (goal − v)²."""
    v = network(phi, x)[0][:, 0]
    return pulled_back(phi, x, factor * 2.0 * (v - goal)[:, None] / len(x))[0]


def a2c(theta, phi, batch, *, ent_coef=0.0, vf_coef=0.5, normalize_advantage=False):
    """A2C.train: of the policy loss and the value loss."""
    x, a, psi, returns = batch["x"], batch["a"], batch["advantages"], batch["returns"]
    psi = normalized(psi) if normalize_advantage else psi
    share = np.full(len(x), 1 / len(x))
    of_policy = [
        -p - ent_coef * h
        for p, h in zip(of_log_prob(theta, x, a, share * psi), of_entropy(theta, x, share), strict=True)
    ]
    return of_policy, of_square(phi, x, returns, vf_coef)


def ppo(theta, phi, batch, *, clip_range=0.2, ent_coef=0.0, vf_coef=0.5):
    """PPO.train, of one minibatch: −min(Â r, Â clip(r)), whose gradient is 0 where the clipped one is smaller."""
    x, a, returns = batch["x"], batch["a"], batch["returns"]
    psi = normalized(batch["advantages"])
    ratio = np.exp(log_prob(theta, x, a) - batch["old_log_prob"])
    limited = np.clip(ratio, 1 - clip_range, 1 + clip_range)
    through = np.where(psi * ratio <= psi * limited, psi * ratio, 0.0)
    share = np.full(len(x), 1 / len(x))
    of_policy = [
        -p - ent_coef * h
        for p, h in zip(of_log_prob(theta, x, a, share * through), of_entropy(theta, x, share), strict=True)
    ]
    return of_policy, of_square(phi, x, returns, vf_coef)


def dqn(theta, target, batch):
    """DQN.train: the mean of smooth_l1 (beta 1) of q(s)[a] against r + γ (1 − done) max q̄(s′)."""
    x, a, rows = batch["x"], batch["a"], np.arange(len(batch["x"]))
    goal = batch["rewards"] + batch["discounts"] * network(target, batch["after"])[0].max(-1)
    q, _ = network(theta, x)
    of_q = np.zeros_like(q)
    of_q[rows, a] = np.clip(q[rows, a] - goal, -1.0, 1.0) / len(x)
    return pulled_back(theta, x, of_q)[0]


def quantile_slope(z, goals, over):
    """The slope of quantile_huber_loss by each of z (…, K), for goals (…, T); mean over T, and divided by `over`."""
    u = goals[..., None, :] - z[..., :, None]
    tau = (np.arange(z.shape[-1]) + 0.5) / z.shape[-1]
    return -(np.abs(tau[:, None] - (u < 0)) * np.clip(u, -1.0, 1.0)).mean(-1) / over


def qrdqn(theta, target, batch, quantiles):
    """QRDQN.train: quantiles summed, mean over targets and rows. The network's last layer says (K, A), as (A, K) here."""
    x, a, rows = batch["x"], batch["a"], np.arange(len(batch["x"]))
    shaped = lambda weights, at: network(weights, at)[0].reshape(len(at), -1, quantiles)
    after = shaped(target, batch["after"])
    goals = batch["rewards"][:, None] + batch["discounts"][:, None] * after[rows, after.mean(-1).argmax(-1)]
    z = shaped(theta, x)
    of_z = np.zeros_like(z)
    of_z[rows, a] = quantile_slope(z[rows, a], goals, over=len(x))
    return pulled_back(theta, x, of_z.reshape(len(x), -1))[0]


def with_action(x, a):
    return np.concatenate([x, a], axis=1)


def td3_critics(critics, targets, target_actor, batch):
    """TD3.train and DDPG.train without noise on the target: Σ_i mean (q_i − y)². DDPG has one critic."""
    after = with_action(batch["after"], np.tanh(network(target_actor, batch["after"])[0]))
    goal = batch["rewards"] + batch["discounts"] * np.min([network(t, after)[0][:, 0] for t in targets], axis=0)
    return [of_square(critic, with_action(batch["x"], batch["a"]), goal, 1.0) for critic in critics]


def td3_actor(actor, critic, batch):
    """−mean q₁(s, μ(s)), at the critic that has just moved."""
    x, (raw, _) = batch["x"], network(actor, batch["x"])
    _, slope = pulled_back(critic, with_action(x, np.tanh(raw)), np.full((len(x), 1), -1.0 / len(x)))
    return pulled_back(actor, x, slope[:, x.shape[1] :] * (1 - np.tanh(raw) ** 2))[0]


INSIDE = 1e-6
"""What SB3 adds to 1 − a² inside of a logarithm. A test takes it out, to see that nothing else differs."""


def squashed(actor, x, epsilon):
    """u, a = tanh u, log σ, and log π(a|s)."""
    mean, log_std = np.split(network(actor, x)[0], 2, axis=-1)
    log_std = np.clip(log_std, -20.0, 2.0)
    u = mean + np.exp(log_std) * epsilon
    normal = (-0.5 * epsilon**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)
    return u, np.tanh(u), log_std, normal - np.log(1 - np.tanh(u) ** 2 + INSIDE).sum(-1)


def sac_critics(critics, targets, actor, alpha, batch):
    """SAC.train: ½ Σ_i mean (q_i − y)²."""
    _, action, _, log_pi = squashed(actor, batch["after"], batch["epsilon_after"])
    after = with_action(batch["after"], action)
    worth = np.min([network(t, after)[0][:, 0] for t in targets], axis=0) - alpha * log_pi
    goal = batch["rewards"] + batch["discounts"] * worth
    return [of_square(critic, with_action(batch["x"], batch["a"]), goal, 0.5) for critic in critics]


def tqc_critics(critics, targets, actor, alpha, batch, dropped):
    """TQC.train: quantiles are not summed, so that the loss is a mean over rows, critics and quantiles too."""
    _, action, _, log_pi = squashed(actor, batch["after"], batch["epsilon_after"])
    after = with_action(batch["after"], action)
    pooled = np.sort(np.concatenate([network(t, after)[0] for t in targets], axis=-1), axis=-1)
    kept = pooled[:, : pooled.shape[1] - dropped * len(targets)] - alpha * log_pi[:, None]
    goals = batch["rewards"][:, None] + batch["discounts"][:, None] * kept
    told = with_action(batch["x"], batch["a"])
    return [
        pulled_back(critic, told, quantile_slope(z, goals, over=len(told) * len(critics) * z.shape[-1]))[0]
        for critic, z in ((critic, network(critic, told)[0]) for critic in critics)
    ]


def sac_actor(actor, critics, alpha, batch, mean=False):
    """α log π − min q (SAC), or − the mean of all quantiles (TQC), by the reparameterized sample."""
    x, epsilon = batch["x"], batch["epsilon"]
    _, action, log_std, _ = squashed(actor, x, epsilon)
    told = with_action(x, action)
    q = np.stack([network(critic, told)[0] for critic in critics])  # (E, M, K)
    share = np.full_like(q, 1 / (len(q) * q.shape[2])) if mean else np.eye(len(q))[q[..., 0].argmin(0)].T[..., None]
    slope = sum(pulled_back(critic, told, s)[1][:, x.shape[1] :] for critic, s in zip(critics, share, strict=True))
    flat = 1 - action**2
    on_u = alpha * 2 * action * flat / (flat + INSIDE) - slope * flat
    on_log_std = (on_u * np.exp(log_std) * epsilon - alpha) * ((log_std > -20.0) & (log_std < 2.0))
    return pulled_back(actor, x, np.concatenate([on_u, on_log_std], axis=-1) / len(x))[0]


def sac_temperature(actor, batch, target_entropy):
    """By log α, of −mean log α (log π + H̄)."""
    return -np.mean(squashed(actor, batch["x"], batch["epsilon"])[3] + target_entropy)


def pqn_returns(rewards, values, last_value, gamma, q_lambda):
    """CleanRL's Q(λ) of one environment whose episode goes on, (T,). Where one ends, its λ part goes on all the same."""
    found = np.zeros(len(rewards))
    for t in reversed(range(len(rewards))):
        if t == len(rewards) - 1:
            found[t] = rewards[t] + gamma * last_value
        else:
            found[t] = rewards[t] + gamma * (q_lambda * found[t + 1] + (1 - q_lambda) * values[t + 1])
    return found


def pqn(theta, batch):
    """CleanRL's: mean (G − q(s)[a])². The authors' own, in JAX, is half of it."""
    x, a, rows = batch["x"], batch["a"], np.arange(len(batch["x"]))
    q, _ = network(theta, x)
    of_q = np.zeros_like(q)
    of_q[rows, a] = 2.0 * (q[rows, a] - batch["returns"]) / len(x)
    return pulled_back(theta, x, of_q)[0]


def numbers(seed=0, rows=12):
    """Batches and weights that the libraries and rlgrad are both given: float32 numbers, as float64."""
    rng = np.random.default_rng(seed)

    def weights(*sizes):
        shapes = [s for i, o in itertools.pairwise(sizes) for s in ((i, o), (o,))]
        return [normal(*shape) * 0.7 for shape in shapes]

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32).astype(float)

    single = lambda x: np.asarray(x, np.float32).astype(float)
    theta, phi = ([single(w) for w in weights(3, 5, out)] for out in (4, 1))
    discrete = {"x": normal(rows, 3), "a": rng.integers(4, size=rows), "after": normal(rows, 3)}
    discrete |= {"rewards": normal(rows), "discounts": single(np.where(rng.random(rows) < 0.3, 0.0, 0.99))}
    discrete |= {"advantages": normal(rows), "returns": normal(rows)}
    discrete["old_log_prob"] = single(log_prob(theta, discrete["x"], discrete["a"]) - np.linspace(-0.5, 0.5, rows))
    continuous = {"x": normal(rows, 3), "a": single(np.tanh(normal(rows, 2))), "after": normal(rows, 3)}
    continuous |= {"rewards": normal(rows), "discounts": discrete["discounts"]}
    continuous |= {"epsilon": normal(rows, 2), "epsilon_after": normal(rows, 2)}
    made = lambda *sizes: [single(w) for w in weights(*sizes)]
    return {
        "discrete": discrete,
        "continuous": continuous,
        "theta": theta,
        "phi": phi,
        "target": made(3, 5, 4),
        "quantiles": made(3, 5, 4 * 3),
        "quantile_target": made(3, 5, 4 * 3),
        "actor": made(3, 6, 2),
        "target_actor": made(3, 6, 2),
        "gaussian": made(3, 6, 4),
        "critics": [made(5, 6, 1) for _ in range(2)],
        "target_critics": [made(5, 6, 1) for _ in range(2)],
        "quantile_critics": [made(5, 6, 4) for _ in range(2)],
        "target_quantile_critics": [made(5, 6, 4) for _ in range(2)],
    }
