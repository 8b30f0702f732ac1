"""The update `Traces` by itself: streams against single runs, loops by hand, what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.by_hand import policy_of
from helpers.streams import Script, traces_in

import rlgrad
from rlgrad import gradients
from rlgrad.agents import A2C, StreamAC, StreamQ
from rlgrad.updates import Ascent, PerHead, Traces
from rlgrad.updates.traces import _without_weights


def variables(*shapes):
    return [keras.Variable(np.zeros(shape, np.float32), name=f"v{i}") for i, shape in enumerate(shapes)]


def test_n_streams_with_weights_that_rest_have_the_traces_of_n_single_runs():
    """A step of size 1e-30 moves no weight, so each stream is a run of its own."""
    still = PerHead(
        policy=Traces(step="constant", learning_rate=1e-30), value=Traces(step="constant", learning_rate=1e-30)
    )
    settings = {"normalize_observations": False, "scale_rewards": False, "update": still}
    script, rollouts = Script(3, seed=5), []
    together = rlgrad.Learner(StreamAC(num_envs=3, **settings), policy_of("discrete"), num_envs=3)
    for _ in range(12):
        rollouts.append(script.play())
        together.learn(rollouts[-1], 0.0, np.array([3, 4], np.int32))
    for n in (0, 2):
        alone = rlgrad.Learner(StreamAC(**settings), policy_of("discrete"), num_envs=1)
        for rollout in rollouts:
            one = rlgrad.Rollout(*[None if x is None else x[:, n : n + 1] for x in rollout[:8]])
            alone.learn(one, 0.0, np.array([3, 4], np.int32))
        for head in ("policy", "value"):
            mine = traces_in(getattr(together.state, head))[n]
            np.testing.assert_allclose(mine, traces_in(getattr(alone.state, head))[0], rtol=1e-5, atol=1e-6)
            assert np.abs(mine).max() > 0.1


def test_a_loop_by_hand_is_td_lambda():
    """Three states in a row, each with a weight of its own: after the reward 1 at the end, v is α (γλ)ᵏ."""
    (weights,) = found = variables((3,))
    state = Traces(step="constant", learning_rate=0.5, trace_decay=0.8).build(found)
    for s, reward in enumerate([0.0, 0.0, 1.0]):
        metrics = state.apply_gradient({"v": tf.one_hot(s, 3)}, error=reward, decay=0.9 * 0.8, ends=s == 2)
    np.testing.assert_allclose(weights.numpy(), 0.5 * 0.72 ** np.array([2, 1, 0]), rtol=1e-6)
    assert float(metrics["trace_norm"]) == pytest.approx(1 + 0.72 + 0.72**2)
    assert not traces_in(state).any()


@pytest.mark.parametrize("step", ["obgd", "adaptive_obgd", "constant"])
def test_the_size_of_a_long_trace_is_the_sum_of_its_absolute_values_and_an_infinite_one_moves_nothing(step):
    rng, found = np.random.default_rng(0), variables((60, 70), (3,))
    rate = {"learning_rate": 0.1} if step == "constant" else {}
    state = Traces(step=step, **rate).build(found, num_envs=2)
    numbers = [rng.normal(size=(2, *v.shape)).astype(np.float32) for v in found]
    gradient = dict(zip("ab", map(tf.constant, numbers), strict=True))
    metrics = state.apply_gradient(gradient, error=[1.0, -2.0], decay=0.5)
    expected = np.mean([sum(np.abs(x[n].astype(float)).sum() for x in numbers) for n in range(2)])
    assert float(metrics["trace_norm"]) == pytest.approx(expected, rel=1e-6)
    before = [v.numpy() for v in (*found, *state.slots)]
    for bad in (np.inf, np.nan):
        numbers[0][1, 59, 69] = bad
        with pytest.raises(FloatingPointError, match="not finite"):
            state.apply_gradient({"a": tf.constant(numbers[0]), "b": gradient["b"]}, error=[1.0, -2.0], decay=0.5)
        for mine, kept in zip((*found, *state.slots), before, strict=True):
            np.testing.assert_array_equal(mine.numpy(), kept)


@pytest.mark.parametrize(("error", "size"), [(5.0, 1 / 2.0), (0.25, 0.25 / 2.0), (-5.0, 1 / 2.0)])
def test_where_the_bound_is_active_the_weights_move_by_at_most_1_over_kappa(error, size):
    found = variables((2, 3), (3,))
    state = Traces(kappa=2.0).build(found)
    gradient = {"a": tf.fill((2, 3), 7.0), "b": tf.fill((3,), -2.0)}
    metrics = state.apply_gradient(gradient, error=error, decay=0.72)
    moved = np.concatenate([v.numpy().ravel() for v in found])
    assert np.abs(moved).sum() == pytest.approx(size, rel=1e-5)
    assert metrics["bound_active"] == 1.0
    assert np.sign(moved[0]) == np.sign(error)


def test_a_short_trace_takes_the_whole_step():
    found = variables((2,))
    metrics = (
        Traces(kappa=2.0, learning_rate=0.1)
        .build(found)
        .apply_gradient({"a": tf.constant([1.0, -0.5])}, error=0.5, decay=0.0)
    )
    np.testing.assert_allclose(found[0].numpy(), [0.05, -0.025], rtol=1e-6)
    assert metrics["bound_active"] == 0.0
    assert float(metrics["effective_step"]) == pytest.approx(0.1)


def test_a_bound_of_exactly_the_step_shortens_nothing():
    """α κ max(|δ|, 1) ‖z‖₁ = ½ · 2 · 1 · 1."""
    for size, active in ((1.0, 0.0), (1.001, 1.0)):
        state = Traces(kappa=2.0, learning_rate=0.5).build(variables((2,)))
        metrics = state.apply_gradient({"a": tf.constant([0.0, -size])}, error=1.0, decay=0.0)
        assert metrics["bound_active"] == active, f"of a trace of the size {size}"


def test_credits_of_any_shape_enter_a_trace_as_if_their_stream_were_alone():
    weights = tf.constant([0.5, 0.0, 0.25])
    for shape in ((), (2,), (2, 3)):
        found = _without_weights(tf.ones((3, *shape)), weights).numpy()
        np.testing.assert_array_equal(
            found, np.broadcast_to(np.reshape([2, 0, 4], (3, *[1] * len(shape))), (3, *shape))
        )


def test_a_stream_that_rests_keeps_its_trace_and_moves_nothing():
    found = variables((2,))
    state = Traces(step="adam", learning_rate=0.1).build(found, 2)
    rows = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    no = tf.constant([False, False])
    state.move([rows], error=tf.constant([1.0, 1.0]), decay=0.5, cuts=no, counts=tf.constant([True, True]))
    before = [slot.numpy() for slot in state.slots], found[0].numpy()
    state.move([rows], error=tf.constant([np.nan, 1.0]), decay=0.5, cuts=~no, counts=no)
    for mine, then in zip(state.slots, before[0], strict=True):
        np.testing.assert_array_equal(mine.numpy(), then)
    np.testing.assert_array_equal(found[0].numpy(), before[1])
    state.move([rows], error=tf.constant([np.nan, 1.0]), decay=0.5, cuts=no, counts=tf.constant([False, True]))
    np.testing.assert_allclose(traces_in(state), [[1.0, 2.0], [4.5, 6.0]])


def test_a_step_that_is_not_finite_moves_neither_weights_nor_traces():
    found = variables((2,))
    state = Traces().build(found)
    state.apply_gradient({"a": tf.ones(2)}, error=1.0, decay=0.5)
    weights, traces = found[0].numpy(), traces_in(state)
    for gradient, error in ((tf.constant([np.inf, 1.0]), 1.0), (tf.ones(2), np.nan)):
        with pytest.raises(FloatingPointError, match="neither weights nor traces have moved"):
            state.apply_gradient({"a": gradient}, error=error, decay=0.5)
        np.testing.assert_array_equal(found[0].numpy(), weights)
        np.testing.assert_array_equal(traces_in(state), traces)


def test_a_reward_that_is_not_finite_stops_the_run_and_leaves_everything():
    policy = policy_of("discrete", normalize_observations=True)
    learner = rlgrad.Learner(StreamAC(), policy, num_envs=1)
    script = Script()
    learner.learn(script.play(), 0.0, np.array([3, 4], np.int32))
    kept = [v.numpy() for v in (*policy.variables, *learner.state.slots, *learner.stream.variables)]
    bad = script.play()._replace(rewards=np.full((1, 1), np.nan, np.float32))
    with pytest.raises(rlgrad.NonFiniteError):
        learner.learn(bad, 0.0, np.array([3, 4], np.int32))
    for mine, then in zip((*policy.variables, *learner.state.slots, *learner.stream.variables), kept, strict=True):
        np.testing.assert_array_equal(mine.numpy(), then)


def test_constraints_are_honoured():
    (variable,) = found = variables((2,))
    variable.constraint = keras.constraints.NonNeg()
    Traces(step="constant", learning_rate=1.0).build(found).apply_gradient(
        {"a": tf.constant([1.0, -1.0])}, error=1.0, decay=0.0
    )
    np.testing.assert_allclose(variable.numpy(), [1.0, 0.0])


def test_a_gradient_of_other_variables_is_refused():
    state = Traces().build(variables((2,)))
    with pytest.raises(ValueError, match=r"Expected a gradient for the 1 variables .* got \[\(3,\)\]"):
        state.apply_gradient({"a": tf.ones(3)}, error=1.0, decay=0.5)


def test_an_agent_without_errors_and_rollouts_of_several_steps_are_refused():
    rollout = Script().play()
    learner = rlgrad.Learner(A2C(num_envs=1, num_steps=1, update=Traces()), policy_of("discrete"), num_envs=1)
    with pytest.raises(ValueError, match=r"A2C has no td_error\(batch, now\).*rlgrad.StreamAgent.*Ascent"):
        learner.learn(rollout, 0.0, np.array([3, 4], np.int32))
    two = rlgrad.Rollout(*[None if x is None else np.concatenate([x, x]) for x in rollout[:8]])
    learner = rlgrad.Learner(StreamAC(update=Traces()), policy_of("discrete"), num_envs=1)
    with pytest.raises(
        ValueError, match=r"one step of each of 1 environments at a time, .*\(2, 1\): set num_steps to 1"
    ):
        learner.learn(two, 0.0, np.array([3, 4], np.int32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trace_decay": 1.5}, "trace_decay"),
        ({"kappa": 0.0}, "kappa"),
        ({"step": "constant"}, "step=constant has no bound on a step, so it needs a learning_rate"),
        ({"step": "adam"}, "step=adam has no bound"),
        ({"beta_2": 1.0}, "beta_2"),
        ({"error_clip": 0.0}, "error_clip"),
        ({"step": "sgd"}, "step"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Traces(**settings)


def test_ascent_on_a_stream_is_one_step_of_the_credited_gradient():
    """The credits of a stream are 1: without the trace's δ, ascent follows ∇q alone, whatever the error."""
    agent = StreamQ(
        normalize_observations=False, scale_rewards=False, update=Ascent(optimizer="sgd", learning_rate=0.1)
    )
    policy = rlgrad.make_policy(
        *(rlgrad.GymCollector("CartPole-v1").observation_space, rlgrad.GymCollector("CartPole-v1").action_space),
        action_values=agent.action_values,
        hidden_sizes=(),
    )
    x = np.ones((1, 4), np.float32)
    expected = gradients.gradient(policy, x, output=gradients.Chosen("policy", np.array([1])))
    before = [v.numpy() for v in policy.trainable_variables]
    rollout = rlgrad.Rollout(
        x[None], np.array([[1]]), np.ones((1, 1), np.float32), np.zeros((1, 1), bool), np.zeros((1, 1), bool), x[None],
        np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32),
    )  # fmt: skip
    rlgrad.Learner(agent, policy, num_envs=1).learn(rollout, 0.0, np.array([3, 4], np.int32))
    for then, now, g in zip(before, policy.trainable_variables, expected.values(), strict=True):
        np.testing.assert_allclose(now.numpy() - then, 0.1 * np.asarray(g), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("over_streams", "moved"), [("mean", [0.15, 0.5]), ("sum", [0.3, 1.0])])
def test_steps_of_streams_are_averaged_or_added(over_streams, moved):
    found = variables((2,))
    state = Traces(step="constant", learning_rate=0.1, over_streams=over_streams).build(found, 2)
    state.apply_gradient({"v": tf.constant([[1.0, 2.0], [2.0, 8.0]])}, error=[1.0, 1.0], decay=0.5)
    np.testing.assert_allclose(found[0].numpy(), moved, rtol=1e-6)


@pytest.mark.parametrize("jit_compile", [None, pytest.param(True, marks=pytest.mark.xla)])
def test_a_number_that_is_not_finite_is_noticed_wherever_it_is(jit_compile):
    """Sizes of traces are summed in parts, and a step is finite if they are."""
    found = variables((100, 100), (300,), (5,))
    state = Traces().build(found)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(*gradient):
        one = tf.ones(1)
        return state.move(gradient, error=one, decay=0.9, cuts=one < 0.0, counts=one > 0.0)["nonfinite_step"]

    good = [np.ones(v.shape, np.float32) for v in found]
    assert step(*good) == -1
    kept = [v.numpy() for v in (*found, *state.slots)]
    for which, size in ((0, 10_000), (1, 300), (2, 5)):
        for at in (0, size // 3, size - 1):
            for number in (np.nan, np.inf):
                bad = [x.copy() for x in good]
                bad[which].flat[at] = number
                assert step(*bad) == 0, (which, at, number)
    for before, after in zip(kept, (*found, *state.slots), strict=True):
        np.testing.assert_array_equal(before, after.numpy())
