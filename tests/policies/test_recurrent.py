"""Policies with memory: what is carried over, what is not, and gradients through time against an unrolled loop."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers.slow import mostly_slow, parameters

import rlgrad
from rlgrad import gradients
from rlgrad.agents import A2C, NPG, PPO, TRPO, Reinforce
from rlgrad.gradients import Entropy, LogProb, PerSequence
from rlgrad.policies import make_policy
from rlgrad.rollouts import GymCollector
from rlgrad.runs.evaluation import evaluate
from rlgrad.updates import Ascent, NaturalGradient, PerHead, TrustRegion

RNG = np.random.default_rng(0)
VECTOR, TWO = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(2)
SMALL = {"hidden_sizes": (5,), "memory_size": 4}


def listed_model():
    """One step of a Keras cell with two states, in a list as Keras gives them, and no value."""
    observation, state = keras.Input((4,), name="observation"), [keras.Input((3,)), keras.Input((3,))]
    output, after = keras.layers.LSTMCell(3)(observation, state)
    return keras.Model(
        {"observation": observation, "state": state}, {"policy": keras.layers.Dense(2)(output), "state": after}
    )


def step_model():
    """One step of a memory that is no Keras cell: an exponential mean of features, which decays as it learns to."""
    observation, state = keras.Input((4,), name="observation"), keras.Input((6,), name="state")
    features = keras.layers.Dense(6, "tanh")(observation)
    gate = keras.layers.Dense(6, "sigmoid")(features)
    after = gate * state + (1.0 - gate) * features
    heads = {"policy": keras.layers.Dense(2)(after), "value": keras.layers.Dense(1)(after), "state": after}
    return keras.Model({"observation": observation, "state": state}, heads)


def simple_model():
    """One step of the smallest memory: a layer of what is seen and of what is remembered."""
    observation, state = keras.Input((4,), name="observation"), keras.Input((3,), name="state")
    after = keras.layers.Dense(3, "tanh")(keras.layers.Concatenate()([observation, state]))
    heads = {"policy": keras.layers.Dense(2)(after), "value": keras.layers.Dense(1)(after), "state": after}
    return keras.Model({"observation": observation, "state": state}, heads)


KINDS = {
    "simple": {"model": simple_model},
    "gru": {"memory": "gru", **SMALL},
    "lstm": {"memory": "lstm", **SMALL},
    "shared": {"memory": "gru", "shared_trunk": True, **SMALL},
    "own": {"model": step_model},
    "own, value apart": {"model": listed_model},
}
every_kind = mostly_slow("options", KINDS, quick=["simple", "own, value apart"])  # the others take longer to trace


def played(options, steps=12, rounds=2, env="CartPole-v1", **collecting):
    """A policy, and the second rollout that it collected: episodes have ended, and others go on."""
    if isinstance(env, str):
        collecting = {"vectorization_mode": "sync", **collecting}
    with GymCollector(env, **{"num_envs": 3, "num_steps": steps, **collecting}) as collector:
        policy = make_policy(collector.observation_space, collector.action_space, seed=0, **options)
        rollouts = [collector.collect(policy) for _ in range(rounds)]
    return policy, rollouts[-1]


def unrolled(policy, rollout, part="policy"):
    """The network along the rollout by a plain loop: heads of each step (T, N, …), and states after it."""
    network = policy.network if part == "policy" or policy.value_network is None else policy.value_network
    state, heads, states = tf.nest.map_structure(tf.constant, rollout.initial_states[part]), [], []
    for t, observations in enumerate(rollout.observations):
        if t:
            over = (rollout.terminations | rollout.truncations)[t - 1] | (rollout.mask[t - 1] == 0)
            state = tf.nest.map_structure(lambda s, over=over: tf.where(over[:, None], 0.0, s), state)
        said = network({"observation": tf.constant(observations), "state": state})
        state = said["state"]
        heads.append(said)
        states.append(state)
    return heads, states


@mostly_slow("options", KINDS, quick=["simple"])
def test_gradients_through_time_are_those_of_the_unrolled_loop(options):
    policy, rollout = played(options)
    assert (rollout.terminations | rollout.truncations)[:-1].any()
    output = {"log_prob": LogProb(policy.rows(rollout.actions)), "entropy": Entropy(), "value": "value"}
    at_theta = gradients.linearize(policy, policy.inputs(rollout), output=output)
    credits = {name: RNG.normal(size=(3, 12)).astype(np.float32) for name in output}
    with tf.GradientTape() as tape:
        heads, total = unrolled(policy, rollout)[0], 0.0
        values = heads if policy.value_network is None else unrolled(policy, rollout, "value")[0]
        for t, (said, valued) in enumerate(zip(heads, values, strict=True)):
            logs = tf.nn.log_softmax(said["policy"])
            total += tf.reduce_sum(credits["log_prob"][:, t] * tf.gather(logs, rollout.actions[t], batch_dims=1))
            total -= tf.reduce_sum(credits["entropy"][:, t] * tf.reduce_sum(tf.exp(logs) * logs, axis=1))
            total += tf.reduce_sum(credits["value"][:, t] * valued["value"][:, 0])
    expected = tape.gradient(total, policy.trainable_variables)
    found = at_theta.gradient(credits)
    assert len(found) == len(expected)
    for (key, gradient), oracle in zip(found.items(), expected, strict=True):
        np.testing.assert_allclose(gradient, oracle, rtol=1e-4, atol=2e-5, err_msg=key)

    @tf.function(jit_compile=True, autograph=False)
    def compiled(x):
        return gradients.linearize(policy, x, output=output).gradient(credits)

    for key, gradient in compiled(tf.nest.map_structure(tf.constant, policy.inputs(rollout))).items():
        np.testing.assert_allclose(gradient, found[key], rtol=1e-4, atol=2e-5, err_msg=key)


@mostly_slow("mode", ["sync", AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, "vector_entry_point"])
def test_the_learner_meets_what_the_policy_said_when_it_acted(mode):
    """r = 1 at the first minibatch, whatever the environments do at an episode's end."""
    env, collecting = "CartPole-v1", {}
    if isinstance(mode, str):
        collecting["vectorization_mode"] = mode
    else:
        import gymnasium

        env = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 3, autoreset_mode=mode)
    policy, rollout = played(KINDS["gru"], steps=40, rounds=3, env=env, **collecting)
    assert (rollout.terminations | rollout.truncations).sum() >= 3
    now = gradients.linearize(policy, policy.inputs(rollout), output=LogProb(policy.rows(rollout.actions))).outputs
    counted = rollout.mask.T > 0
    np.testing.assert_allclose(np.asarray(now)[counted], rollout.log_probs.T[counted], atol=2e-6)


def test_nothing_is_remembered_across_the_border_of_an_episode():
    policy, rollout = played(KINDS["lstm"], steps=30)
    row, slot = np.argwhere((rollout.terminations | rollout.truncations)[:-1])[0]
    before = rollout.observations.copy()
    before[: row + 1, slot] += 1.0
    first, second = (policy(policy.inputs(rollout._replace(observations=x))) for x in (rollout.observations, before))
    np.testing.assert_array_equal(first["policy"][slot, row + 1 :], second["policy"][slot, row + 1 :])
    assert np.abs(first["value"][slot, row] - second["value"][slot, row]) > 1e-4
    early = rollout.observations.copy()
    early[row + 1, slot] += 1.0  # and within an episode it is
    assert (
        np.abs(
            policy(policy.inputs(rollout._replace(observations=early)))["value"][slot, row + 2]
            - first["value"][slot, row + 2]
        )
        > 1e-5
    )


@every_kind
def test_successors_are_valued_with_what_is_remembered_of_their_own_episode(options):
    policy, rollout = played(options)
    values, following = policy.values(rollout)
    ends = rollout.terminations | rollout.truncations
    np.testing.assert_allclose(following[:-1][~ends[:-1]], values[1:][~ends[:-1]], atol=1e-6)
    network = policy.network if policy.value_network is None else policy.value_network
    states = unrolled(policy, rollout, "policy" if policy.value_network is None else "value")[1]
    for t, slot in np.argwhere(ends):
        state = tf.nest.map_structure(lambda s, slot=slot: s[slot : slot + 1], states[t])
        said = network({"observation": tf.constant(rollout.final_observations[t, slot][None]), "state": state})
        np.testing.assert_allclose(following[t, slot], said["value"][0, 0], atol=1e-6)


def test_a_value_may_do_without_memory():
    value_model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    policy, rollout = played({**KINDS["gru"], "value_model": value_model})
    values, following = policy.values(rollout)
    np.testing.assert_allclose(
        values, value_model(rollout.observations.reshape(-1, 4)).numpy().reshape(12, 3), rtol=1e-5
    )
    np.testing.assert_allclose(
        following, value_model(rollout.final_observations.reshape(-1, 4)).numpy().reshape(12, 3), rtol=1e-5
    )
    np.testing.assert_allclose(policy(policy.inputs(rollout))["value"], np.transpose(values), rtol=1e-5)


@mostly_slow("kind", ["simple", "gru"])
def test_a_sample_is_a_sequence(kind):
    policy, rollout = played(KINDS[kind], steps=6)
    credit, x = RNG.normal(size=(3, 6)).astype(np.float32), policy.inputs(rollout)
    log_prob = LogProb(policy.rows(rollout.actions))
    with pytest.raises(ValueError, match=r"add up the steps of sequences with PerSequence\(output\)"):
        gradients.per_sample_gradient(policy, x, output=log_prob)
    rows = gradients.per_sample_gradient(policy, x, output=PerSequence(log_prob, credit))
    for i in range(3):
        one = credit * (np.arange(3) == i)[:, None]
        alone = gradients.gradient(policy, x, output=log_prob, sample_weight=one)
        for key, gradient in alone.items():
            np.testing.assert_allclose(rows[key][i], gradient, rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_norms_and_gram_are_those_of_sequences(kind):
    policy, rollout = played(KINDS[kind], steps=6)
    x, output = policy.inputs(rollout), PerSequence(LogProb(policy.rows(rollout.actions)))
    rows = gradients.per_sample_gradient(policy, x, output=output)
    flat = np.concatenate([np.reshape(g, (3, -1)) for g in rows.values()], axis=1)
    np.testing.assert_allclose(gradients.gram(policy, x, output=output), flat @ flat.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        gradients.per_sample_norm(policy, x, output=output), np.linalg.norm(flat, axis=1), rtol=1e-4
    )


@mostly_slow("weights", {"too few": np.ones((3, 5), np.float32), "of sequences": np.ones(3, np.float32)})
def test_weights_of_another_shape_than_the_steps_are_refused(weights):
    policy, rollout = played(KINDS["simple"], steps=6)
    with pytest.raises(ValueError, match=r"Weights of the steps have shape \(3, 6\)"):
        gradients.per_sample_gradient(policy, policy.inputs(rollout), output=PerSequence("value", weights))


def test_what_has_one_number_for_each_sample_is_no_sequence():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="leave PerSequence out"):
        gradients.per_sample_gradient(model, np.zeros((2, 3), np.float32), output=PerSequence(None))


def test_fisher_products_are_exact_through_time():
    policy, rollout = played(KINDS["gru"], steps=5)
    with tf.GradientTape(persistent=True) as tape:
        logits = tf.stack([said["policy"] for said in unrolled(policy, rollout)[0]], axis=1)
    variables = policy.network.trainable_variables
    jacobian = tf.concat(
        [tf.reshape(j, (3, 5, 2, -1)) for j in tape.jacobian(logits, variables, experimental_use_pfor=False)], axis=-1
    )
    p = tf.nn.softmax(logits)
    metric = tf.linalg.diag(p) - p[..., None] * p[..., None, :]
    weights = RNG.uniform(size=(3, 5)).astype(np.float32)
    dense = np.einsum("nt,ntka,ntkl,ntlb->ab", weights, jacobian, metric, jacobian)
    at_theta = gradients.linearize(policy, policy.inputs(rollout), output=LogProb(policy.rows(rollout.actions)))
    like = at_theta.gradient()
    v = RNG.normal(size=len(dense)).astype(np.float32)
    found = at_theta.fisher_vector_product(gradients.unflatten(v, like), sample_weight=weights)
    np.testing.assert_allclose(gradients.flatten(found), dense @ v, rtol=1e-3, atol=1e-5)


@every_kind
def test_acting_step_by_step_is_what_evaluation_plays(options):
    import gymnasium

    policy, _ = played(options, rounds=1)
    result = evaluate(policy, "CartPole-v1", episodes=1, seed=3)
    with GymCollector("CartPole-v1", num_envs=1, seed=3, streams=("evaluation", "evaluation")) as collector:
        begun = collector.collect(policy, greedy=True).observations[0, 0]
    env = gymnasium.make("CartPole-v1")
    env.reset(seed=0)
    env.unwrapped.state = begun.astype(np.float64)
    observation, state, total, over, play = begun, None, 0.0, False, policy.player(greedy=True)
    while not over:
        action, state = policy.act(observation, greedy=True, state=state)
        assert play(observation) == action
        observation, reward, terminated, truncated, _ = env.step(action)
        total, over = total + reward, terminated or truncated
    assert total == result.mean_return


def test_a_batch_is_acted_on_as_its_rows_are():
    policy, _ = played(KINDS["lstm"], rounds=1)
    x = RNG.normal(size=(2, 4, 4)).astype(np.float32)
    actions, state = policy.act(x[0], greedy=True)
    again, after = policy.act(x[1], greedy=True, state=state)
    assert actions.shape == again.shape == (4,)
    one, mine = policy.act(x[0, 2], greedy=True)
    two, mine = policy.act(x[1, 2], greedy=True, state=mine)
    assert (one, two) == (actions[2], again[2])
    for batch, single in zip(tf.nest.flatten(after), tf.nest.flatten(mine), strict=True):
        np.testing.assert_allclose(batch[2], single, atol=1e-6)


def test_another_policy_does_not_get_the_memories_of_the_first():
    with GymCollector("CartPole-v1", num_envs=2, num_steps=5) as collector:
        spaces_ = collector.observation_space, collector.action_space
        first, second = make_policy(*spaces_, **KINDS["gru"]), make_policy(*spaces_, **KINDS["lstm"])
        collector.collect(first)
        rollout = collector.collect(second)
        assert all(not state.any() for state in tf.nest.flatten(rollout.initial_states))
        collector.collect(make_policy(*spaces_, hidden_sizes=(4,)))


def test_masked_actions_and_normalized_trees_are_remembered_too():
    space = spaces.Dict(observation=VECTOR, action_mask=spaces.MultiBinary(2))
    policy = make_policy(space, TWO, normalize_observations=True, **KINDS["gru"])
    x = {"observation": RNG.normal(size=(4, 6, 3)).astype(np.float32), "action_mask": np.ones((4, 6, 2), np.int8)}
    x["action_mask"][:, ::2, 0] = 0
    sequences = {"observation": x, "begins": np.zeros((4, 6), bool), "state": policy.initial_state(4)}
    probabilities = tf.nn.softmax(policy(sequences)["policy"]).numpy()
    assert (probabilities[:, ::2, 0] == 0).all()
    assert (probabilities[:, 1::2, 0] > 0).all()
    policy.normalize(sequences, np.ones((4, 6), np.float32))
    (normalizer,) = policy.preparation.normalizers
    np.testing.assert_allclose(normalizer.mean, x["observation"].mean(axis=(0, 1)), atol=1e-5)


FAST = {"num_envs": 4, "num_steps": 16}
AGENTS = {
    "reinforce": Reinforce(num_envs=4),
    "reinforce by steps": Reinforce(**FAST),
    "a2c": A2C(**FAST),
    "ppo": PPO(**FAST),
    "npg": NPG(**FAST),
    "trpo": TRPO(**FAST),
}


@pytest.mark.parametrize(
    "agent",
    [
        *parameters(AGENTS, quick=["a2c"]),
        pytest.param(AGENTS["reinforce"], id="reinforce through xla", marks=[pytest.mark.slow, pytest.mark.xla]),
    ],
)
def test_every_batch_agent_trains_a_policy_with_memory(agent, tmp_path, request):
    run = rlgrad.train(
        agent,
        "CartPole-v1",
        total_timesteps=256,
        memory="gru",
        run_dir=tmp_path / "run",
        evaluation_episodes=2,
        verbose=False,
        **SMALL,
    )
    assert run.learner.traces == 1
    assert run.learner.xla is (request.node.get_closest_marker("xla") is not None)
    assert np.isfinite(run.history["train/gradient_norm"]).all()
    if isinstance(agent, TRPO | NPG):
        assert max(run.history["train/kl"]) <= 1.5 * run.config.agent.update.policy.target_kl
    loaded = rlgrad.load(tmp_path / "run", verbose=False)
    x = RNG.normal(size=(5, 4)).astype(np.float32)
    for one, two in zip(run.policy.act(x, greedy=True), loaded.policy.act(x, greedy=True), strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, two)


def test_a_model_of_ones_own_with_a_state_trains_and_is_loaded(tmp_path):
    run = rlgrad.train(
        A2C(**FAST),
        "CartPole-v1",
        total_timesteps=128,
        model=step_model,
        run_dir=tmp_path / "run",
        evaluation_episodes=0,
        verbose=False,
    )
    loaded = rlgrad.load(tmp_path / "run", verbose=False)
    for mine, theirs in zip(run.policy.variables, loaded.policy.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_options_that_contradict_memory_are_refused(tmp_path):
    folders = (tmp_path / f"run{i}" for i in range(9))

    def start(agent, **options):
        rlgrad.train(agent, "CartPole-v1", total_timesteps=128, run_dir=next(folders), verbose=False, **options)

    with pytest.raises(ValueError, match="memory is a setting of the default networks"):
        start(A2C(**FAST), memory="gru", model=step_model)
    with pytest.raises(ValueError, match="value_model has a memory, and the policy has none"):
        start(A2C(**FAST), value_model=step_model)
    with pytest.raises(ValueError, match="memory is one of gru, lstm or null"):
        start(A2C(**FAST), memory="rnn")
    with pytest.raises(ValueError, match="3 does not divide the 4 sequences of a rollout"):
        start(PPO(**FAST, update=Ascent(num_minibatches=3)), model=simple_model)
    empirical = PerHead(policy=NaturalGradient(fisher="empirical"), value=Ascent())
    with pytest.raises(ValueError, match="use fisher='exact'"):
        start(NPG(**FAST, update=empirical), memory="gru")
    with pytest.raises(ValueError, match="share"):
        start(TRPO(**FAST, update=PerHead(policy=TrustRegion(), value=Ascent())), memory="gru", shared_trunk=True)


def test_diagnostics_of_steps_say_that_there_are_none():
    policy, rollout = played(KINDS["gru"])
    with pytest.raises(NotImplementedError, match="gradients of sequences"):
        rlgrad.Learner(A2C(num_envs=3, num_steps=12), policy, num_envs=3).diagnose(rollout, 0.0)
