"""Updates of agents that learn action values, in NumPy float64, with a replay of lists and target weights that are copies.

A network is θ = [kernel, bias, …, kernel, bias] as in `by_hand`, whose last layer says A numbers, or A times K, of each row;
with `dueling` 1 + A, the first of which is a value. Observations are two numbers made of one that never comes twice, by which a
step that was drawn is found again.
"""

import keras
import numpy as np
import tensorflow as tf
from gymnasium import spaces

import rlgrad
from helpers.by_hand import Adam, clipped, network, pulled_back
from helpers.replays import Lists, Player, tensors
from rlgrad import random
from rlgrad.gradients.questions.selection import keys_of
from rlgrad.learning.contract import batch_signature, dry_run
from rlgrad.learning.objective import PolicyObjective
from rlgrad.learning.target_weights import TargetWeights
from rlgrad.replay import Ring, Target

ACTIONS = 5
SLOTS, STEPS = 2, 5
SPACES = spaces.Box(-9, 9, (2,)), spaces.Discrete(ACTIONS)


def vector(x):
    """Two numbers of one: float32 (…, 2)."""
    x = np.asarray(x, float)
    return np.stack([np.sin(x), np.cos(0.7 * x)], axis=-1).astype(np.float32)


class Source:
    """Plays rollouts, and says of each step that is held what a draw of it returns."""

    def __init__(self, agent, seed=0, idle=0.0):
        self.player = Player(SLOTS, seed=seed, end=0.3, idle=idle)
        replay = agent.replay
        self.lists = Lists(SLOTS, -(-replay.capacity // SLOTS), agent.gamma, replay.n_steps)

    def play(self):
        scalars = self.player.play(STEPS)
        self.lists.write(scalars)
        return scalars._replace(
            observations=vector(scalars.observations), final_observations=vector(scalars.final_observations)
        )

    def held(self):
        """By observation: (its action, rewards, discount, successor)."""
        return {
            tuple(vector(o)): (step.action, total, discount, vector(successor).astype(float))
            for o, (step, total, discount, successor) in self.lists.held().items()
        }


def policy_for(agent, seed=0, scale=0.6, spaces=SPACES, **options):
    """A small policy, its weights far from their start."""
    options = {"hidden_sizes": (4,)} | options
    policy = rlgrad.make_policy(*spaces, action_values=agent.action_values, seed=0, **options)
    rng = np.random.default_rng(seed)
    for variable in policy.trainable_variables:
        variable.assign(rng.normal(size=variable.shape, scale=scale))
    return policy


def theta_of(policy):
    return [v.numpy().astype(float) for v in policy.network.trainable_variables]


def q_values(theta, x, agent):
    """(M, A), or (M, A, K)."""
    y, width = network(theta, x)[0], agent.action_values.width
    y = y.reshape(len(y), -1, width) if width else y
    return y[:, :1] + y[:, 1:] - y[:, 1:].mean(1, keepdims=True) if agent.dueling else y


def q_gradient(theta, x, a, c, agent):
    """Σ_n c_n · ∇ q(s_n)[a_n], of c (M,) or (M, K)."""
    of_q = np.zeros((len(x), ACTIONS, *c.shape[1:]))
    of_q[np.arange(len(x)), a] = c
    if agent.dueling:
        of_q = np.concatenate([of_q.sum(1, keepdims=True), of_q - of_q.mean(1, keepdims=True)], axis=1)
    return pulled_back(theta, x, of_q.reshape(len(x), -1))


def trained_by_hand(agent, credit_of, theta, rollouts_and_seeds, source, updates, optimizer=None, progress=0.0):
    """The weights, the target weights and each update's numbers.

    Args:
        agent: has the settings.
        credit_of: what the paper says, (agent, theta, target, rows) to a credit, where rows are (x, a, R, d, x′).
        theta: at first, also of the target.
        rollouts_and_seeds: a function that returns the next rollout and its seed; until it returns None.
        source: knows what is held after each.
        updates: after each rollout.
        optimizer: `None`: Adam, of the update's learning rate.
        progress: share of training done.
    """
    replay, update = agent.replay, agent.update
    optimizer = optimizer or Adam(update.learning_rate)
    ring = Ring(replay, *specs(), SLOTS, steps=STEPS, gamma=agent.gamma)  # for its draws; what they hold is looked up
    target, steps, log, priorities, largest = [w.copy() for w in theta], 0, [], {}, 1.0
    for rollout, seed in rollouts_and_seeds:
        ring.write(tensors(rollout))
        held = source.held()
        priorities = {key: priorities.get(key, largest) for key in held}
        for i in range(updates):
            drawn = ring.draw(random.fold_in(tf.constant(seed), tf.constant(i)), replay.batch_size, progress)
            keys = [tuple(row) for row in drawn.observations.numpy()]
            a, total, discount, after = (np.array(column) for column in zip(*(held[key] for key in keys), strict=True))
            x = np.array(keys, float)
            weights = np.ones(len(x)) / len(x)
            if replay.prioritized:
                beta = replay.importance_exponent + (1 - replay.importance_exponent) * progress
                p = np.array([priorities[key] for key in keys])
                weights *= (p / p.min()) ** -beta
            credit = credit_of(agent, theta, target, (x, a, total, discount, after))
            of_rows = weights[:, None] if credit.ndim == 2 else weights
            gradient, length = clipped(q_gradient(theta, x, a, of_rows * credit, agent), update.max_grad_norm)
            q = q_values(theta, x, agent)[np.arange(len(x)), a]
            log.append({"gradient_norm": length, "q": q, "weights": weights})
            theta, steps = optimizer.ascend(theta, gradient), steps + 1
            if replay.prioritized:
                new = (np.abs(credit).reshape(len(x), -1).mean(1) + 1e-6) ** replay.priority_exponent
                ring.reprioritize(drawn.rows, tf.constant(np.abs(credit).reshape(len(x), -1).mean(1), tf.float32))
                priorities |= dict(zip(keys, new, strict=True))
                largest = max(largest, new.max())
            if steps % agent.target.every == 0:
                rate = agent.target.rate
                target = [t + rate * (w - t) for w, t in zip(theta, target, strict=True)]
    return theta, target, log


def both_ways(agent, credit_of, *, rollouts=2, updates=3, xla=False, progress=0.0, seed=0, idle=0.0):
    """Train a policy by a `Learner` and by hand on the same rollouts.

    Returns:
        The learner; what each `learn` returned; and θ, the target's θ and the log of `trained_by_hand`.
    """
    policy, source = policy_for(agent), Source(agent, seed=seed, idle=idle)
    theta = theta_of(policy)
    learner = rlgrad.Learner(agent, policy, num_envs=SLOTS, xla=xla)
    metrics = []

    def rollouts_and_seeds():
        for i in range(rollouts):
            rollout, seeds = source.play(), np.array([i, 7], np.int32)
            metrics.append(learner.learn(rollout, progress, seeds))
            yield rollout, seeds

    by_hand = trained_by_hand(agent, credit_of, theta, rollouts_and_seeds(), source, updates, progress=progress)
    return learner, metrics, *by_hand


def assert_same_weights(learner, theta, target, atol=2e-6):
    for mine, expected in zip(theta_of(learner.policy), theta, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=atol)
    for mine, expected in zip(learner.target.placed.values(), target, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=atol)


def specs():
    return tf.TensorSpec((None, 2), tf.float32), tf.TensorSpec((None,), tf.int64)


def drawn_batch(rows=24, seed=3, **changes):
    """Rows as a replay draws them: rewards and discounts of any number of steps, some ended, weights that differ."""
    rng = np.random.default_rng(seed)
    discounts = 0.9 ** rng.integers(1, 4, rows) * (rng.random(rows) < 0.8)
    fields = {
        "observations": rng.normal(size=(rows, 2)),
        "actions": rng.integers(ACTIONS, size=rows),
        "log_probs": np.zeros(rows),
        "rewards": rng.normal(size=rows),
        "discounts": discounts,
        "next_observations": rng.normal(size=(rows, 2)),
        "weights": rng.uniform(0.1, 1.0, rows) / rows,
        "seeds": np.zeros((rows, 2), np.int32),
        "progress": 0.0,
    } | changes
    as_tensor = lambda x: tf.constant(x, tf.float32) if np.asarray(x).dtype.kind == "f" else tf.constant(x)
    return rlgrad.ReplayBatch(**{name: as_tensor(x) for name, x in fields.items()})


def target_model(policy, seed=5, scale=0.6):
    """A model like the policy's with weights of its own, and these weights by the keys of the policy's."""
    model = keras.models.clone_model(policy.network)
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape, scale=scale).astype(np.float32) for w in policy.network.get_weights()])
    mine = {id(v): w for v, w in zip(policy.network.trainable_variables, model.trainable_variables, strict=True)}
    weights = TargetWeights(Target(rate=1.0), {key: mine[id(v)] for v, key in keys_of(policy) if id(v) in mine})
    return model, weights.placed


def credited_gradient(agent, policy, batch, placed):
    """Σ w c ∇q by variable path, as an update computes it."""
    signature = batch_signature(policy.observation_spec, policy.action_spec, replay=True)
    traced = dry_run(agent, signature, value=False, num_actions=ACTIONS)
    variables = policy.trainable_variables
    return PolicyObjective(agent, policy, batch, traced.known, traced.credited, variables, (), placed).gradient()[0]


def assert_gradient_of_loss(agent, loss_of, rtol=1e-5, atol=1e-6):
    """Compare the credited gradient with automatic differentiation of a loss.

    Args:
        agent: gives the credit.
        loss_of: (model, target, batch), with two Keras models, to losses of the rows.
    """
    policy, batch = policy_for(agent), drawn_batch()
    model, placed = target_model(policy)
    got = credited_gradient(agent, policy, batch, placed)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(batch.weights * loss_of(policy.network, model, batch))
    expected = tape.gradient(loss, [v.value for v in policy.network.trainable_variables])
    assert max(float(tf.reduce_max(tf.abs(g))) for g in expected) > 1e-3
    for mine, theirs in zip(got.values(), expected, strict=True):
        np.testing.assert_allclose(mine, -theirs, rtol=rtol, atol=atol)
