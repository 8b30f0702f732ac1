"""Agents with a replay: what their author is told, how many updates they make, and what these updates are of."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.replays import tensors
from helpers.values import SLOTS, SPACES, STEPS, Source, policy_for, theta_of

import rlgrad
from rlgrad import random
from rlgrad.agents import DQN, PQN, QRDQN
from rlgrad.policies.actions import ActionValues
from rlgrad.replay import Exploration, Linear, Replay, Target
from rlgrad.updates import Ascent

SMALL = {"capacity": 60, "batch_size": 6, "warmup": 0, "updates_per_step": 0.3}
SETTINGS = {"num_envs": SLOTS, "num_steps": STEPS, "replay": Replay(**SMALL), "target": Target(rate=1.0, every=2)}


def dqn(**changes):
    return DQN(**SETTINGS | changes)


class Mine(rlgrad.ReplayAgent):
    """An agent of a user's own, whose credit is given as a function."""

    num_envs: int = SLOTS
    num_steps: int | None = STEPS
    replay: Replay | None = Replay(**SMALL)

    def credit(self, batch, now):
        return {"q": batch.rewards - now.q}


class WithTarget(Mine):
    target: Target | None = Target(rate=0.5)


def learner_of(credit, base=Mine, **fields):
    agent = type("Mine", (base,), {"credit": lambda self, batch, now: credit(batch, now)})(**fields)
    return rlgrad.Learner(agent, policy_for(agent), num_envs=SLOTS)


@pytest.mark.parametrize(
    ("credit", "message"),
    {
        "a rollout's advantages": (
            lambda batch, now: {"q": batch.advantages},
            r"has no 'advantages'.*batch\.rewards \+ batch\.discounts \* v",
        ),
        "a name that is misspelled": (lambda batch, now: {"q": batch.reward - now.q}, r"no 'reward'.*rewards"),
        "target weights that it has not": (
            lambda batch, now: {"q": now.target(batch.next_observations).value - now.q},
            r"asks now\.target and has no target weights: give it target=Target\(rate=…, every=…\)",
        ),
        "a column for a vector": (
            lambda batch, now: {"q": (batch.rewards - now.q)[:, None]},
            r"credit\['q'\] has the shape .* one number for each row",
        ),
        "a credit of each pair": (
            lambda batch, now: {"q": batch.rewards[:, None] - now.q},
            r"credit\['q'\] has the shape",
        ),
        "two kinds of networks": (
            lambda batch, now: {"q": batch.rewards - now.q, "log_prob": 1.0},
            r"an output 'log_prob' that does not exist",
        ),
        "an output that no policy has": (
            lambda batch, now: {"q": now.at(batch.next_observations).q_valuse[:, 0]},
            r"no output 'q_valuse'.*q_values",
        ),
        "an output of actions without them": (
            lambda batch, now: {"q": now.at(batch.next_observations).q - now.q},
            r"q is of actions: pass them, as in now\.at\(observations, actions\)\.q",
        ),
        "a number that is none": (lambda batch, now: {"q": batch.actions}, r"int64 where float32 is expected"),
        "a condition of Python's": (
            lambda batch, now: {"q": 1.0 if batch.rewards[0] > 0 else 0.0},
            r"write tf\.where",
        ),
    }.values(),
)
def test_its_author_is_told_what_is_wrong_before_anything_is_played(credit, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        learner_of(credit)


def test_quantiles_are_credited_one_by_one():
    ten = {"quantiles": 10, "target": Target()}
    with pytest.raises(ValueError, match="the numbers of the output for each row"):
        learner_of(
            lambda batch, now: {"q": batch.rewards - tf.reduce_mean(now.q, -1)}, type("Base", (QRDQN,), {}), **ten
        )


def test_actions_that_are_not_discrete_have_no_values():
    for agent in (DQN(), PQN()):
        with pytest.raises(ValueError, match=r"credits q.*not Discrete.*ppo"):
            rlgrad.train(agent, "Pendulum-v1", total_timesteps=64, verbose=False)


def test_a_network_of_another_kind_is_refused_with_how_to_build_the_right_one():
    policy = rlgrad.make_policy(*SPACES, hidden_sizes=(4,))
    with pytest.raises(ValueError, match=r"build it with make_policy\(…, action_values=agent\.action_values\)"):
        rlgrad.Learner(dqn(), policy, num_envs=SLOTS)
    with pytest.raises(ValueError, match=r"build it with make_policy\(…, action_values=None\)"):
        rlgrad.Learner(rlgrad.agents.A2C(), policy_for(dqn()), num_envs=8)


def test_a_memory_and_a_replay_are_refused_together():
    with pytest.raises(ValueError, match=r"a memory needs sequences: leave the memory out.*pqn"):
        rlgrad.train(dqn(), "CartPole-v1", memory="gru", total_timesteps=64, verbose=False)


def test_a_replay_is_filled_by_steps_and_there_is_one():
    with pytest.raises(ValueError, match="set num_steps"):
        Mine(num_steps=None)
    with pytest.raises(ValueError, match=r"set replay, or make it a subclass of rlgrad\.Agent"):
        Mine(replay=None)
    with pytest.raises(ValueError, match=r"replay\.capacity is at least \d+, for rollouts of 5 steps"):
        _ = learner_of(lambda batch, now: {"q": -now.q}, replay=Replay(**SMALL | {"capacity": 20})).rehearsal.ring


def trained(learner, source, count, progress=0.0):
    return [learner.learn(source.play(), progress, np.array([i, 7], np.int32)) for i in range(count)]


@pytest.mark.parametrize(
    ("ratio", "warmup", "expected"),
    [
        (0.25, 0, [2, 3, 2, 3]),  # 2½ each: the half is carried over
        (0.25, 13, [0, 1, 3, 2]),  # of the 7, 17 and 27 steps beyond the warm-up: 1, 4 and 6 in all
        (0.3, 10, [0, 3, 3, 3]),
        (1.5, 25, [0, 0, 7, 15]),  # of 5 and 15 steps: 7 and 22 in all
        (1 / 30, 0, [0, 0, 1, 0]),
    ],
)
def test_updates_per_step_are_exact_over_the_whole_run(ratio, warmup, expected):
    agent = dqn(replay=Replay(**SMALL | {"updates_per_step": ratio, "warmup": warmup}))
    policy = policy_for(agent)
    learner, source = rlgrad.Learner(agent, policy, num_envs=SLOTS), Source(agent)
    for i, count in enumerate(expected):
        before = theta_of(policy)
        (metrics,) = trained(learner, source, 1)
        assert metrics["gradient_steps"] == count, i
        moved = max(np.abs(a - b).max() for a, b in zip(theta_of(policy), before, strict=True))
        assert (moved > 0) == (count > 0)
        others = [metrics[name] for name in metrics if name != "gradient_steps"]
        assert np.isfinite(others).all() if count else np.isnan(others).all()
    assert learner.traces == 1


def seen_by(base, **fields):
    """A learner whose agent notes the numbers of each batch, and what it noted."""
    seen = []

    class Watching(base):
        def credit(self, batch, now):
            numbers = [batch.rewards, batch.weights, batch.observations, now.q]
            tf.py_function(lambda *x: seen.append([y.numpy() for y in x]), numbers, [])
            return super().credit(batch, now)

    agent = Watching(**SETTINGS | fields)
    return rlgrad.Learner(agent, policy_for(agent), num_envs=SLOTS, xla=False), seen


def test_rewards_are_scaled_by_the_deviation_at_the_time_of_the_update_and_stored_as_they_are():
    learner, seen = seen_by(DQN, scale_rewards=True, replay=Replay(**SMALL | {"updates_per_step": 0.1, "n_steps": 2}))
    source = Source(learner.agent)
    for i in range(3):
        trained(learner, source, 1)
        held = source.held()
        rewards, _, observations, _ = seen[-1]
        raw = np.array([held[tuple(row)][1] for row in observations])
        scale = learner.reward_scale.scale(tf.ones(()))
        np.testing.assert_allclose(rewards, raw * scale.numpy(), rtol=1e-4, err_msg=str(i))
    assert abs(float(scale) - 1.0) > 1e-2


def test_observations_are_stored_as_they_are_and_normalized_by_what_was_played():
    """Every observation that counts is merged once, however often it is drawn."""
    agent = dqn(normalize_observations=True)
    policy = policy_for(agent, normalize_observations=True)
    learner, source = rlgrad.Learner(agent, policy, num_envs=SLOTS), Source(agent, idle=0.2)
    played = []
    for i in range(4):
        rollout = source.play()
        learner.learn(rollout, 0.0, np.array([i, 7], np.int32))
        played.append(rollout.observations[rollout.mask > 0])
    merged = np.concatenate(played)
    (normalizer,) = [n for n in policy.preparation.normalizers if n is not None]
    assert float(normalizer.count) == len(merged)
    np.testing.assert_allclose(normalizer.mean, merged.mean(0), atol=1e-5)
    drawn = learner.rehearsal.ring.draw(tf.constant([1, 2]), 200)
    assert {tuple(row) for row in drawn.observations.numpy()} == set(source.held())
    x = source.play().observations[0]
    scaled = (x - merged.mean(0)) / np.sqrt(merged.var(0))
    np.testing.assert_allclose(policy(x)["policy"], policy.network(scaled.astype(np.float32)), rtol=1e-3, atol=1e-4)


def test_a_mask_binds_the_target_and_the_choice_of_the_next_action():
    space = spaces.Dict(observation=SPACES[0], action_mask=spaces.MultiBinary(5))
    agent = dqn(double=True)
    policy = policy_for(agent, spaces=(space, SPACES[1]))
    learner = rlgrad.Learner(agent, policy, num_envs=SLOTS)
    for copy in learner.target.variables[:-1]:
        copy.assign(np.random.default_rng(1).normal(size=copy.shape))
    rng = np.random.default_rng(0)
    x, allowed = rng.normal(size=(40, 2)).astype(np.float32), rng.random((40, 5)) < 0.4
    allowed[np.arange(40), rng.integers(5, size=40)] = True
    heads = rlgrad.learning.asking.Now({}, policy, None, learner.target.placed)
    after = {"observation": tf.constant(x), "action_mask": tf.constant(allowed.astype(np.int8))}
    q, slow = heads.at(after).q_values.numpy(), heads.target(after).q_values.numpy()
    live = policy.network(x).numpy()
    np.testing.assert_allclose(q[allowed], live[allowed], rtol=1e-5)
    np.testing.assert_array_equal(q[~allowed], np.float32(-1e9))
    best = np.where(allowed, live, -np.inf).argmax(1)
    zeros = tf.zeros((40,))
    batch = rlgrad.ReplayBatch(after, tf.zeros((40,), tf.int64), zeros, zeros, zeros + 1.0, after, zeros, zeros, 0.0)
    heads.q = zeros
    np.testing.assert_allclose(agent.credit(batch, heads)["q"], slow[np.arange(40), best], rtol=1e-5)
    np.testing.assert_allclose(heads.at(after).value, live[np.arange(40), best], rtol=1e-5)


def test_three_updates_of_one_program_are_three_by_one():
    """By hand: the rollout is remembered, and each batch is drawn and learned from in turn, without a program."""
    agent = dqn(replay=Replay(**SMALL, prioritized=True, n_steps=2), update=Ascent(learning_rate=0.02))
    learners = [rlgrad.Learner(agent, policy_for(agent), num_envs=SLOTS) for _ in range(2)]
    together, apart = learners
    source = Source(agent)
    for i in range(2):
        rollout, seed = source.play(), np.array([i, 7], np.int32)
        together.learn(rollout, 0.5, seed)
        apart.rehearsal.remember(tensors(rollout))
        for k in range(3):
            own = random.fold_in(tf.constant(seed), tf.constant(k))
            batch, rows = apart.rehearsal.draw(own, tf.constant(0.5))
            _, priorities = apart._update_once(batch, own)
            apart.rehearsal.ring.reprioritize(rows, priorities)
    for mine, theirs in zip(*[[*x.policy.variables, *x.target.variables] for x in learners], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)
    levels = [x.rehearsal.ring._priorities.levels[0].numpy() for x in learners]
    np.testing.assert_allclose(*levels, rtol=1e-4)


@pytest.mark.parametrize("prioritized", [False, True])
def test_a_step_that_is_not_finite_names_its_row_and_moves_nothing(prioritized):
    agent = dqn(replay=Replay(**SMALL | {"batch_size": 64, "prioritized": prioritized}))
    policy = policy_for(agent)
    learner, source = rlgrad.Learner(agent, policy, num_envs=SLOTS), Source(agent)
    trained(learner, source, 1)
    before, copies = theta_of(policy), [v.numpy() for v in learner.target.variables]
    rollout = source.play()
    rollout.rewards[2, 1] = np.inf
    with pytest.raises(rlgrad.NonFiniteError, match=r"q \(its credit, inf in row \d+ of the batch, where rewards"):
        learner.learn(rollout, 0.0, np.array([1, 7], np.int32))
    kept = [*theta_of(policy), *(v.numpy() for v in learner.target.variables)]
    for mine, theirs in zip(kept, [*before, *copies], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_noise_is_for_continuous_actions():
    agent = dqn(replay=Replay(**SMALL), exploration=Exploration(noise=0.1))
    with pytest.raises(ValueError, match=r"exploration\.noise is Gaussian, for continuous actions"):
        rlgrad.Learner(agent, policy_for(agent), num_envs=SLOTS)


def test_priorities_are_of_q_unless_the_agent_says_what_they_are():
    with pytest.raises(ValueError, match=r"draws by priority, which is .credit of q. unless said otherwise"):
        Mine().priority(None, None, {"log_prob": 1.0})


def test_any_agent_that_annotates_the_replay_has_one():
    class Annotating(rlgrad.Agent):
        num_envs: int = SLOTS
        num_steps: int | None = STEPS
        replay: Replay | None = Replay(**SMALL | {"prioritized": True})

        def credit(self, batch, now):
            return {"q": batch.rewards - now.q}

    agent = Annotating()
    policy = policy_for(agent)
    before = theta_of(policy)
    learner = rlgrad.Learner(agent, policy, num_envs=SLOTS)
    metrics = learner.learn(Source(agent).play(), 0.0, np.array([0, 1], np.int32))
    assert metrics["gradient_steps"] > 0
    assert any((mine != theirs).any() for mine, theirs in zip(theta_of(policy), before, strict=True))
    with pytest.raises(ValueError, match="A replay is written every few steps"):
        Annotating(num_steps=None)


def test_who_acts_for_training_is_random_during_the_warm_up_and_then_as_often_as_the_schedule_says():
    agent = dqn(
        replay=Replay(**SMALL | {"warmup": 40}),
        exploration=Exploration(random=Linear(start=0.8, end=0.2, over=0.5)),
    )
    learner = rlgrad.Learner(agent, policy_for(agent), num_envs=SLOTS)
    shares = [
        float(learner.acting(*moment).share) for moment in ((0.0, 0), (0.1, 39), (0.0, 40), (0.25, 100), (0.9, 400))
    ]
    np.testing.assert_allclose(shares, [1.0, 1.0, 0.8, 0.5, 0.2], rtol=1e-6)
    never = dqn(replay=Replay(**SMALL), exploration=Exploration())
    plain = rlgrad.Learner(never, policy_for(never), num_envs=SLOTS)
    assert plain.acting(0.0, 0) is plain.policy


def test_a_learner_by_hand_is_what_train_does(tmp_path):
    agent = dqn(num_envs=2, num_steps=8, replay=Replay(**SMALL | {"capacity": 100, "warmup": 20}))
    run = rlgrad.train(
        agent, "CartPole-v1", total_timesteps=64, hidden_sizes=(4,), seed=5, vectorization_mode="sync", verbose=False,
        evaluation_episodes=0, run_dir=tmp_path / "run",
    )  # fmt: skip
    with rlgrad.GymCollector("CartPole-v1", num_envs=2, num_steps=8, seed=5, vectorization_mode="sync") as collector:
        policy = rlgrad.make_policy(
            collector.observation_space,
            collector.action_space,
            action_values=agent.action_values,
            hidden_sizes=(4,),
            seed=5,
        )
        learner = rlgrad.Learner(agent, policy, num_envs=2)
        shuffles = random.Seeds(random.stream(5, "shuffle"))
        for i in range(4):
            rollout = collector.collect(learner.acting(16 * i / 64, 16 * i))
            learner.learn(rollout, 16 * i / 64, shuffles(i, 1)[0])
    for mine, theirs in zip(policy.variables, run.policy.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_memory_learns_action_values_from_sequences():
    """PQN by plain ascent: Δθ = rate · Σ w (G − q) ∇q over the sequences, differentiated here by a tape."""
    policy = policy_for(PQN(), memory="gru", memory_size=3, scale=0.4)
    agent = PQN(num_envs=SLOTS, num_steps=STEPS, update=Ascent(optimizer="sgd", learning_rate=0.1))
    learner = rlgrad.Learner(agent, policy, num_envs=SLOTS, xla=False)
    rollout = Source(dqn()).play()._replace(initial_states=policy.initial_state(SLOTS))
    inputs, actions, w = (
        policy.inputs(rollout),
        policy.rows(rollout.actions),
        policy.rows(rollout.mask) / rollout.mask.sum(),
    )
    values, next_values = policy.values(tensors(rollout))
    estimates = agent.estimate(rollout._replace(values=values, next_values=next_values))
    returns, weights = policy.rows(estimates.returns), [v.value for v in policy.network.trainable_variables]
    before = [v.numpy() for v in policy.network.trainable_variables]
    with tf.GradientTape() as tape:
        q = tf.reduce_sum(policy(inputs)["policy"] * tf.one_hot(actions, 5), axis=-1)
        objective = tf.reduce_sum(w * (returns - tf.stop_gradient(q)) * q)
    expected = tape.gradient(objective, weights)
    metrics = learner.learn(rollout, 0.0, np.array([1, 7], np.int32))
    assert metrics["q_mean"] == pytest.approx(float(tf.reduce_sum(w * q)), rel=1e-4, abs=1e-6)
    assert len(expected) > 4
    for variable, old, g in zip(policy.network.trainable_variables, before, expected, strict=True):
        np.testing.assert_allclose(variable.numpy() - old, 0.1 * g.numpy(), atol=2e-6)


def test_an_agent_may_learn_a_value_beside_what_is_measured_and_noise_is_its_own_at_each_call():
    seen = []

    class Noisy(WithTarget):
        def credit(self, batch, now):
            first, second = now.noise(2), now.noise(2)
            tf.py_function(lambda *x: seen.append([y.numpy() for y in x]), [first, second], [])
            there = now.target(batch.next_observations)
            return {"q": batch.rewards + batch.discounts * there.value + 0.0 * first[:, 0] - now.q}

        def measure(self, batch, now):
            return {
                "gap": now.at(batch.observations, batch.actions).q - now.q,
                "best": now.at(batch.observations).value,
            }

    agent = Noisy(replay=Replay(**SMALL | {"batch_size": 40}))
    learner = rlgrad.Learner(agent, policy_for(agent), num_envs=SLOTS, xla=False)
    (metrics,) = trained(learner, Source(agent), 1)
    assert metrics["gap"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["best"] >= metrics["q_mean"]
    numbers = np.stack(seen)
    assert numbers.shape == (3, 2, 40, 2)
    assert len(np.unique(numbers)) == numbers.size
    assert abs(numbers.mean()) < 0.2
    assert abs(numbers.std() - 1) < 0.2


def test_only_weights_behind_the_target_are_copied_and_they_may_be_of_a_model_that_was_given():
    x = keras.Input((2,))
    h = keras.layers.Dense(4, "tanh")(x)
    model = keras.Model(x, keras.layers.Dense(5)(h))
    model.layers[1].trainable = False
    agent = dqn()
    policy = rlgrad.make_policy(*SPACES, model=model, action_values=agent.action_values)
    learner = rlgrad.Learner(agent, policy, num_envs=SLOTS)
    frozen = [w.numpy() for w in model.layers[1].weights]
    trained(learner, Source(agent), 2)
    for a, b in zip(model.layers[1].weights, frozen, strict=True):
        np.testing.assert_array_equal(a, b)
    assert {tuple(v.shape) for v in learner.target.variables[:-1]} == {(4, 5), (5,)}


def test_a_program_that_waits_for_the_warm_up_is_not_traced_again(caplog):
    agent = dqn(replay=Replay(**SMALL | {"warmup": 15}))
    learner, source = rlgrad.Learner(agent, policy_for(agent), num_envs=SLOTS), Source(agent)
    with caplog.at_level(logging.INFO, "rlgrad"):
        steps = [m["gradient_steps"] for m in trained(learner, source, 3)]
    assert steps == [0, 1, 3]
    assert learner.traces == 1
    assert sum("Compiling" in record.message for record in caplog.records) == 1


def test_what_the_network_says_of_each_action_follows_from_the_fields():
    assert DQN(dueling=True).action_values == ActionValues(0, None, True)
    assert QRDQN(quantiles=7).action_values == ActionValues(7, None, False)
    assert rlgrad.agents.C51(atoms=5, support=(0, 2)).action_values == ActionValues(5, (0.0, 2.0), False)
