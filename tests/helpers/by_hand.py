"""One update of each agent in NumPy float64, written from the papers: loops, dense matrices, derivatives by hand.

A policy is θ = [kernel, bias, …, kernel, bias], a tanh network with a linear end, whose outputs are logits; or, with one more
array at the end of θ, log σ, the mean of a Gaussian. A value estimate is φ = [kernel, bias, …] with one output.
"""

import weakref

import numpy as np

import rlgrad
from rlgrad import random


def is_gaussian(theta):
    return len(theta) % 2 == 1


def network(weights, x):
    """The outputs, and what each layer was given."""
    inputs = []
    for i in range(0, len(weights) - len(weights) % 2, 2):
        inputs.append(x)
        x = x @ weights[i] + weights[i + 1]
        if i + 3 < len(weights):
            x = np.tanh(x)
    return x, inputs


def pulled_back(weights, x, cotangent):
    """Σ_n cotangent_n · ∂(outputs of row n)/∂weights, in the order of the weights."""
    _, inputs = network(weights, x)
    found = []
    for i in reversed(range(len(inputs))):
        found = [inputs[i].T @ cotangent, cotangent.sum(0), *found]
        cotangent = (cotangent @ weights[2 * i].T) * (1.0 - inputs[i] ** 2)  # tanh' = 1 − tanh²
    return found


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def log_prob(theta, x, a):
    y, _ = network(theta, x)
    if is_gaussian(theta):
        z = (a - y) / np.exp(theta[-1])
        return (-0.5 * z**2 - theta[-1] - 0.5 * np.log(2 * np.pi)).sum(-1)
    return log_softmax(y)[np.arange(len(a)), a]


def entropy(theta, x):
    y, _ = network(theta, x)
    if is_gaussian(theta):
        return np.full(len(x), (theta[-1] + 0.5 * np.log(2 * np.pi * np.e)).sum())
    return -(np.exp(log_softmax(y)) * log_softmax(y)).sum(-1)


def kl(theta, other, x):
    """KL(π ‖ π′) of each row."""
    y, _ = network(theta, x)
    y2, _ = network(other, x)
    if is_gaussian(theta):
        s, s2 = np.exp(theta[-1]), np.exp(other[-1])
        return (np.log(s2 / s) + (s**2 + (y - y2) ** 2) / (2 * s2**2) - 0.5).sum(-1)
    return (np.exp(log_softmax(y)) * (log_softmax(y) - log_softmax(y2))).sum(-1)


def score(theta, x, a, c):
    """Σ_n c_n ∇ log π(a_n|s_n)."""
    y, _ = network(theta, x)
    if is_gaussian(theta):
        sigma = np.exp(theta[-1])
        z = (a - y) / sigma
        return [*pulled_back(theta[:-1], x, c[:, None] * z / sigma), (c[:, None] * (z**2 - 1)).sum(0)]
    chosen = np.eye(y.shape[1])[a]
    return pulled_back(theta, x, c[:, None] * (chosen - np.exp(log_softmax(y))))


def entropy_gradient(theta, x, c):
    """Σ_n c_n ∇ H(π(·|s_n))."""
    y, _ = network(theta, x)
    if is_gaussian(theta):
        return [*pulled_back(theta[:-1], x, np.zeros_like(y)), np.full(y.shape[1], c.sum())]
    p = np.exp(log_softmax(y))
    return pulled_back(theta, x, -c[:, None] * p * (log_softmax(y) + entropy(theta, x)[:, None]))


def value(phi, x):
    return network(phi, x)[0][..., 0]


def value_gradient(phi, x, c):
    """Σ_n c_n ∇v(s_n)."""
    return pulled_back(phi, x, c[:, None])


def flat(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


def like(vector, arrays):
    ends = np.cumsum([a.size for a in arrays])[:-1]
    return [part.reshape(a.shape) for part, a in zip(np.split(vector, ends), arrays, strict=True)]


def added(arrays, others, scale=1.0):
    return [a + scale * b for a, b in zip(arrays, others, strict=True)]


def advantages_and_returns(rollout, phi, gamma, gae_lambda):
    """Â_t = δ_t + γλ Â_t+1 up to the end of the episode or rollout, and Â_t + v(s_t); each (T, N)."""
    steps, columns = rollout.rewards.shape
    v, v_next = value(phi, rollout.observations.astype(float)), value(phi, rollout.final_observations.astype(float))
    advantages = np.zeros((steps, columns))
    for n in range(columns):
        following = 0.0
        for t in reversed(range(steps)):
            if rollout.terminations[t, n] or rollout.truncations[t, n]:
                following = 0.0
            bootstrap = 0.0 if rollout.terminations[t, n] else v_next[t, n]
            delta = float(rollout.rewards[t, n]) + gamma * bootstrap - v[t, n]
            advantages[t, n] = following = delta + gamma * gae_lambda * following
    return advantages, advantages + v


def rows(rollout):
    """Observations, actions, log-probabilities when they were taken, and 1 / number of valid rows; time and columns merged."""
    x = rollout.observations.reshape(-1, rollout.observations.shape[-1]).astype(float)
    a = rollout.actions.reshape(-1, *rollout.actions.shape[2:])
    mask = rollout.mask.ravel().astype(float)
    return x, a, rollout.log_probs.ravel().astype(float), mask / mask.sum()


def standardized(x, w):
    w = w / w.sum()
    mean = (w * x).sum()
    return (x - mean) / np.sqrt((w * (x - mean) ** 2).sum())


class SGD:
    def __init__(self, rate):
        self.rate = rate

    def ascend(self, weights, gradient):
        return added(weights, gradient, self.rate)


class RMSprop:
    def __init__(self, rate, rho=0.9, epsilon=1e-7):
        self.rate, self.rho, self.epsilon, self.squares = rate, rho, epsilon, 0.0

    def ascend(self, weights, gradient):
        g = flat(gradient)
        self.squares = self.rho * self.squares + (1 - self.rho) * g**2
        return added(weights, like(self.rate * g / np.sqrt(self.squares + self.epsilon), weights))


class Adam:
    def __init__(self, rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
        self.rate, self.beta_1, self.beta_2, self.epsilon = rate, beta_1, beta_2, epsilon
        self.mean = self.squares = 0.0
        self.steps = 0

    def ascend(self, weights, gradient):
        g = flat(gradient)
        self.steps += 1
        self.mean = self.beta_1 * self.mean + (1 - self.beta_1) * g
        self.squares = self.beta_2 * self.squares + (1 - self.beta_2) * g**2
        rate = self.rate * np.sqrt(1 - self.beta_2**self.steps) / (1 - self.beta_1**self.steps)
        return added(weights, like(rate * self.mean / (np.sqrt(self.squares) + self.epsilon), weights))


def clipped(gradient, limit):
    """Scaled to the norm `limit` where it is longer; and the norm before."""
    length = np.linalg.norm(flat(gradient))
    scale = 1.0 if limit is None else min(1.0, limit / length)
    return [scale * g for g in gradient], length


def scores(theta, x, a):
    """∇ log π(a_n|s_n) of each row by itself, (N, P)."""
    return np.stack([flat(score(theta, x[n : n + 1], a[n : n + 1], np.ones(1))) for n in range(len(x))])


def empirical_fisher(theta, x, a, w):
    return sum(w[n] * np.outer(s, s) for n, s in enumerate(scores(theta, x, a)))


def exact_fisher(theta, x, w):
    """Σ_n w_n E_a[∇ log π ∇ log πᵀ]: a sum over all actions, or for a Gaussian Jᵀ diag(1/σ²) J and 2 for each log σ."""
    y, _ = network(theta, x)
    size = flat(theta).size
    fisher = np.zeros((size, size))
    if is_gaussian(theta):
        for n in range(len(x)):
            for k, log_std in enumerate(theta[-1]):
                unit = np.zeros((1, y.shape[1]))
                unit[0, k] = 1.0
                j = np.concatenate([flat(pulled_back(theta[:-1], x[n : n + 1], unit)), np.zeros(y.shape[1])])
                fisher += w[n] * np.outer(j, j) / np.exp(2 * log_std)
        fisher[-y.shape[1] :, -y.shape[1] :] += 2.0 * w.sum() * np.eye(y.shape[1])
        return fisher
    for action in range(y.shape[1]):
        p = np.exp(log_softmax(y))[:, action]
        fisher += empirical_fisher(theta, x, np.full(len(x), action), w * p)
    return fisher


def conjugate_gradients(matrix, b, iterations):
    """Shewchuk (1994), algorithm B2, from x = 0; stops once ‖r‖² ≤ 10⁻¹⁰ ‖b‖²."""
    x, r = np.zeros_like(b), b.copy()
    d = r.copy()
    for _ in range(iterations):
        if r @ r <= 1e-10 * (b @ b):
            break
        q = matrix @ d
        alpha = (r @ r) / (d @ q)
        x, r_next = x + alpha * d, r - alpha * q
        d = r_next + (r_next @ r_next) / (r @ r) * d
        r = r_next
    return x


def value_steps(phi, x, returns, w, update, seed):
    """Adam on the squared error, over shuffled minibatches; the value's shuffles come after the policy's, at seed + (0, 1)."""
    optimizer = Adam(update.learning_rate)
    for order in np.asarray(random.permutations([seed[0], seed[1] + 1], update.num_epochs, len(x))):
        for part in np.split(order, update.num_minibatches):
            error = returns[part] - value(phi, x[part])
            gradient = value_gradient(phi, x[part], w[part] * update.num_minibatches * error)
            phi = optimizer.ascend(phi, gradient)
    return phi


# Column 0: the task ends at t = 1. Column 1: time runs out at t = 1, and t = 2 is a row that counts for nothing.
OBSERVATIONS = np.array(
    [
        [[0.5, -1.2], [1.1, 0.3]],
        [[-0.7, 0.8], [0.2, -0.4]],
        [[1.5, 0.1], [9.0, 9.0]],
        [[0.9, -0.6], [-1.3, 0.7]],
    ],
    np.float32,
)
SUCCESSORS = np.array(
    [
        [[-0.7, 0.8], [0.2, -0.4]],
        [[-1.9, 1.4], [0.6, -1.1]],
        [[0.9, -0.6], [-1.3, 0.7]],
        [[0.4, -0.2], [-0.8, 1.0]],
    ],
    np.float32,
)
REWARDS = np.array([[1.0, -0.5], [2.0, 0.25], [-1.5, 0.0], [0.5, 3.0]], np.float32)
TERMINATIONS = np.array([[0, 0], [1, 0], [0, 0], [0, 0]], bool)
TRUNCATIONS = np.array([[0, 0], [0, 1], [0, 0], [0, 0]], bool)
MASK = np.array([[1, 1], [1, 1], [1, 0], [1, 1]], np.float32)
DISCRETE = np.array([[0, 2], [1, 0], [2, 0], [1, 1]])
CONTINUOUS = np.array(
    [[[0.4, -1.0], [1.3, 0.2]], [[-0.6, 0.5], [0.1, 0.9]], [[0.8, -0.3], [0.0, 0.0]], [[-1.1, 0.7], [0.3, -0.2]]],
    np.float32,
)
KINDS = ("discrete", "continuous")
_MADE = weakref.WeakKeyDictionary()  # what `policy_of` made each policy of
_TRACED = {}


def policy_of(kind, seed=0, scale=0.6, **options):
    """A small policy with a value network, its weights far from their start."""
    from gymnasium import spaces

    actions = spaces.Discrete(3) if kind == "discrete" else spaces.Box(-5.0, 5.0, (2,))
    policy = rlgrad.make_policy(spaces.Box(-9, 9, (2,)), actions, hidden_sizes=(4, 3), seed=0, **options)
    if "model" not in options:
        _MADE[policy] = kind, options
    rng = np.random.default_rng(seed)
    for variable in policy.trainable_variables:
        variable.assign(rng.normal(size=variable.shape, scale=scale))
    return policy


def theta_and_phi(policy):
    """θ and φ in float64."""
    theta = [v.numpy().astype(float) for v in policy.network.trainable_variables]
    if policy.log_std is not None:
        theta.append(policy.log_std.numpy().astype(float))
    return theta, [v.numpy().astype(float) for v in policy.value_network.trainable_variables]


def literal_rollout(policy, moved=None):
    """The rollout above. `moved`, (8,), is by how much log π has grown since it was collected; none: not at all."""
    actions = DISCRETE if policy.log_std is None else CONTINUOUS
    theta, _ = theta_and_phi(policy)
    merged = OBSERVATIONS.reshape(8, 2).astype(float), actions.reshape(8, *actions.shape[2:])
    log_probs = log_prob(theta, *merged) - (0.0 if moved is None else np.asarray(moved))
    return rlgrad.Rollout(
        OBSERVATIONS,
        actions,
        REWARDS,
        TERMINATIONS,
        TRUNCATIONS,
        SUCCESSORS,
        log_probs.reshape(4, 2).astype(np.float32),
        MASK,
        None,
        None,
    )


def learned(agent, policy, rollout, progress=0.0, seed=(3, 4), xla=False):
    """The metrics of one update; the policy has moved."""
    if policy not in _MADE:
        return rlgrad.Learner(agent, policy, num_envs=rollout.rewards.shape[1], xla=xla).learn(
            rollout, progress, list(seed)
        )
    learner, slots = _traced(agent, *_MADE[policy], rollout, xla)
    for mine, theirs in zip(learner.policy.variables, policy.variables, strict=True):
        mine.assign(theirs)
    for slot, value in zip(learner.state.slots, slots, strict=True):
        slot.assign(value)
    try:
        return learner.learn(rollout, progress, list(seed))
    finally:
        for mine, theirs in zip(learner.policy.variables, policy.variables, strict=True):
            theirs.assign(mine)


def _traced(agent, kind, options, rollout, xla):
    """A learner of its own for these shapes, and its first slots: tracing one takes seconds, an update milliseconds."""
    shapes = tuple((np.shape(x), str(np.asarray(x).dtype)) for x in rollout if x is not None)
    key = type(agent), repr(agent), kind, repr(sorted(options.items())), shapes, xla
    if key not in _TRACED:
        learner = rlgrad.Learner(agent, policy_of(kind, **options), num_envs=rollout.rewards.shape[1], xla=xla)
        _TRACED[key] = learner, [slot.numpy() for slot in learner.state.slots]
    return _TRACED[key]


def assert_weights(policy, theta, phi, atol=1e-6):
    names = ("policy", "value estimate")
    for name, mine, expected in zip(names, theta_and_phi(policy), (theta, phi), strict=True):
        for i, (a, b) in enumerate(zip(mine, expected, strict=True)):
            which = f"array {i} of {len(mine)}, of shape {a.shape}, of the {name}'s weights, and what it is by hand"
            np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=which)
