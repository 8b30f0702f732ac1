"""What TensorBoard reads back: scalars, histograms and videos, also of a run that was killed and went on."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from helpers.slow import mostly_slow
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rlgrad
import rlgrad.envs
from rlgrad.logs import event_files, videos
from rlgrad.logs import events as encoding
from rlgrad.logs.histograms import bins
from rlgrad.logs.tensorboard import TensorBoardLog
from rlgrad.playback.films import gif
from rlgrad.runs.training import conclude

QUICK = {"total_timesteps": 1024, "num_envs": 4, "num_steps": 32, "evaluation_episodes": 0, "verbose": False}
QUICK |= {"vectorization_mode": "sync"}


@pytest.fixture(autouse=True)
def without_a_display(in_a_folder_of_its_own, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)


def events(path):
    return EventAccumulator(str(path), size_guidance={"tensors": 0}).Reload()


def scalars(path, tag):
    return [(event.step, event.tensor_proto.float_val[0]) for event in events(path).Tensors(tag)]


def write(path, rows, start=0, end=True):
    log = TensorBoardLog()
    run = SimpleNamespace(path=path, timesteps=start, config=SimpleNamespace(total_timesteps=100), finished=True)
    log.on_start(run)
    for run.timesteps, value in rows:
        log.on_update(run, {"train/return": value, "train/length": float("nan")})
    if end:
        log.on_end(run)


def test_rows_are_on_disk_as_soon_as_they_are_logged(tmp_path):
    write(tmp_path, [(10, 1.0), (20, 2.0)], end=False)
    assert scalars(tmp_path, "train/return") == [(10, 1.0), (20, 2.0)]


def test_the_final_evaluation_is_shown_at_the_last_step_also_after_a_resume(tmp_path):
    run = rlgrad.train("a2c", "CartPole-v1", **QUICK | {"evaluation_episodes": 3, "run_dir": tmp_path / "run"})
    results = json.loads((run.path / "evaluation.json").read_text())
    for kind in ("greedy", "sampled"):
        shown = [(1024, pytest.approx(results[kind]["mean_return"]))]
        assert scalars(run.path, f"eval/return_{kind}") == shown
        assert scalars(run.path, f"eval/length_{kind}") == shown  # a reward of 1 at each step
    again = rlgrad.load(run.path, verbose=False)
    again.evaluate(2)
    conclude(again)  # not followed: nothing was trained
    assert len(scalars(run.path, "eval/return_greedy")) == 1
    again.train(2048)
    conclude(again)
    assert [step for step, _ in scalars(run.path, "eval/return_greedy")] == [1024, 2048]


def test_the_settings_are_shown_as_text_and_as_hparams(tmp_path):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    paths = [tmp_path / str(seed) for seed in range(2)]
    for seed, path in enumerate(paths):
        rlgrad.train("a2c", "CartPole-v1", seed=seed, run_dir=path, layer_norm=True, **QUICK)
    (text,) = events(paths[0]).Tensors("settings")
    assert "    env: CartPole-v1\n" in text.tensor_proto.string_val[0].decode()
    groups = []
    for path in paths:
        content = events(path).PluginTagToContent("hparams")
        start, end = (
            HParamsPluginData.FromString(content[f"_hparams_/session_{name}_info"]) for name in ("start", "end")
        )
        shown = start.session_start_info.hparams
        assert (shown["agent.gamma"].number_value, shown["agent.name"].string_value) == (0.99, "a2c")
        assert shown["layer_norm"].bool_value is True
        assert shown["hidden_sizes"].string_value == "[64, 64]"
        assert end.session_end_info.status == 1
        assert "resolved.device" not in shown
        groups.append(start.session_start_info.group_name)
    assert len({*groups}) == 1  # seeds are repetitions


def test_a_run_that_goes_on_drops_the_rows_that_it_will_write_again(tmp_path):
    write(tmp_path, [(10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0)], end=False)
    write(tmp_path, [(35, 3.5)], start=20)
    assert scalars(tmp_path, "train/return") == [(10, 1.0), (20, 2.0), (35, 3.5)]


def test_files_are_named_in_the_order_in_which_they_were_made(tmp_path):
    made = []
    for start in range(3):
        write(tmp_path, [(start + 1, 1.0)], start=start)
        made += sorted({file.name for file in tmp_path.iterdir()} - set(made))
    assert made == sorted(made)
    assert len(made) == 3


def test_an_event_that_was_being_written_when_the_process_was_killed_is_removed(tmp_path):
    write(tmp_path, [(10, 1.0), (20, 2.0)], end=False)
    (file,) = tmp_path.glob("events*")
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    write(tmp_path, [(20, 2.5)], start=10)
    assert whole.startswith(file.read_bytes())
    assert scalars(tmp_path, "train/return") == [(10, 1.0), (20, 2.5)]


def test_an_event_that_cannot_be_read_is_left_out_and_said(tmp_path, caplog):
    write(tmp_path, [(10, 1.0), (20, 2.0)], end=False)
    (file,) = tmp_path.glob("events*")
    data = file.read_bytes()
    at = data.rindex(b"train/return") - 8
    file.write_bytes(data[:at] + b"\xff" * 8 + data[at + 8 :])
    write(tmp_path, [(30, 3.0)], start=20)
    assert scalars(tmp_path, "train/return") == [(10, 1.0), (30, 3.0)]
    assert f"An event of {file} cannot be read: it and those after it are left out." in caplog.messages


def test_what_has_no_value_is_no_point(tmp_path):
    write(tmp_path, [(10, 1.0)])
    assert events(tmp_path).Tags()["tensors"] == ["train/return"]


def test_checksums_are_those_of_tensorboard_for_every_length_up_to_three_blocks():
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    data = np.random.default_rng(0).bytes(5000)
    for length in (*range(12), *range(508, 520), *range(1020, 1032), 600, 5000):
        assert event_files.checksum(data[:length]) == masked_crc32c(data[:length])


def test_events_are_those_of_tensorboard_byte_for_byte():
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

    def theirs(tag, plugin, **tensor):
        kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin))
        return Summary.Value(tag=tag, tensor=TensorProto(**tensor), metadata=kind)

    def shape(*sizes):
        return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])

    before, after = encoding.scalar("train/*\x04\0\0\0\0")  # what stands before the number, inside of the name
    numbers = np.arange(300.0).tobytes()
    mine = [
        before + np.float32(-1.5).tobytes() + after,
        encoding.value("weights/π", "histograms", encoding.array(encoding.DOUBLE, (100, 3), numbers)),
        encoding.value("film", "images", encoding.strings([b"320", b"", b"x" * 1000])),
    ]
    summary = Summary(
        value=[
            theirs("train/*\x04\0\0\0\0", "scalars", dtype=1, float_val=[-1.5]),
            theirs("weights/π", "histograms", dtype=2, tensor_shape=shape(100, 3), tensor_content=numbers),
            theirs("film", "images", dtype=7, tensor_shape=shape(3), string_val=[b"320", b"", b"x" * 1000]),
        ]
    )
    for step in (1, 127, 128, 300, 2**40):
        for content, options in (
            (encoding.version("brain.Event:2"), {"file_version": "brain.Event:2"}),
            (encoding.start(), {"session_log": SessionLog(status=SessionLog.START)}),
            (encoding.summary(*mine), {"summary": summary}),
        ):
            encoded = encoding.event(1.5, step, content)
            assert encoded == Event(wall_time=1.5, step=step, **options).SerializeToString()
            assert encoding.step_of(encoded) == step
    assert encoding.step_of(Event(wall_time=1.5).SerializeToString()) == 0


def test_a_number_beyond_float32_is_shown_as_infinite(tmp_path):
    write(tmp_path, [(10, 1e300)])
    assert scalars(tmp_path, "train/return") == [(10, np.inf)]


def test_an_event_that_was_changed_is_found_by_its_checksum(tmp_path, caplog):
    write(tmp_path, [(10, 1.0), (20, 2.0), (30, 3.0)], end=False)
    (file,) = tmp_path.glob("events*")
    data = bytearray(file.read_bytes())
    data[data.rindex(np.float32(2.0).tobytes())] ^= 1
    file.write_bytes(data)
    write(tmp_path, [(40, 4.0)], start=30)
    assert scalars(tmp_path, "train/return") == [(10, 1.0), (40, 4.0)]
    assert "cannot be read" in caplog.text


def test_scalars_do_without_the_package(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"] + ["tensorboard"]:
        monkeypatch.setitem(sys.modules, name, None)
    write(tmp_path, [(10, 1.0)])
    write(tmp_path, [(20, 2.0)], start=10)
    monkeypatch.undo()
    assert scalars(tmp_path, "train/return") == [(10, 1.0), (20, 2.0)]


def test_bins_count_what_is_finite_between_the_least_and_the_largest():
    counted = bins(np.array([[0.0, 0.1, 3.0], [np.nan, 3.0, np.inf]]))
    assert counted.shape == (30, 3)
    np.testing.assert_allclose(counted[0], [0.0, 0.1, 1.0])
    np.testing.assert_allclose(counted[-1], [2.9, 3.0, 2.0])
    assert counted[:, 2].sum() == 4
    assert bins(np.zeros(3))[:, 2].sum() == 3
    assert bins(np.array([np.nan]))[:, 2].sum() == 0


@pytest.fixture
def shown(finished):
    """A finished run of which TensorBoard shows everything that it can."""
    return finished("reinforce", histograms=True, videos=3, name="shown")


def test_histograms_are_of_every_weight_and_of_what_it_changed_by(shown):
    run = rlgrad.load(shown, verbose=False)
    found = events(shown)
    keys = {"policy/output/kernel", "value/output/kernel", "policy/hidden_1/bias"}
    assert {f"{kind}/{key}" for kind in ("weights", "changes") for key in keys} <= set(found.Tags()["tensors"])
    assert found.SummaryMetadata("weights/policy/output/kernel").plugin_data.plugin_name == "histograms"
    tensors = found.Tensors("weights/policy/output/kernel")
    assert [event.step for event in tensors] == run.history["time/timesteps"]
    last = np.frombuffer(tensors[-1].tensor_proto.tensor_content).reshape(30, 3)
    np.testing.assert_array_equal(last, bins(run.policy.network.get_layer("output").kernel.numpy()))


def test_histograms_and_videos_change_no_weight(shown, finished):
    ours, theirs = (rlgrad.load(path, verbose=False).policy.get_weights() for path in (finished("reinforce"), shown))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_videos_are_evenly_spaced_and_the_last_is_of_the_last_weights(shown):
    found = events(shown).Tensors(videos.TAG)
    assert [event.step for event in found] == [256, 384, 512]  # the first rows from 512 / 3 and 1024 / 3 on
    width, height, data = found[-1].tensor_proto.string_val
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.n_frames > 1) == ("GIF", True)
    assert image.size == (int(width), int(height)) == (320, 213)


def test_a_run_that_goes_on_makes_the_videos_that_are_left(shown):
    rlgrad.load(shown, verbose=False).train(1024)
    assert [event.step for event in events(shown).Tensors(videos.TAG)] == [256, 384, 512, 768, 1024]


def test_fast_frames_are_left_out_and_large_ones_made_smaller():
    frames = [np.full((400, 800, 3), 10 * i, np.uint8) for i in range(6)]
    file = io.BytesIO()
    with gif(file, 50.0, 320) as write:
        for frame in frames:
            write(frame)
    image = Image.open(file)
    assert (image.n_frames, image.info["duration"], *image.size) == (3, 40, 320, 160)


@pytest.mark.slow
def test_a_policy_with_memory_and_wrapped_observations_is_filmed(tmp_path):
    options = {"wrappers": ("TimeAwareObservation",), "memory": "gru", "memory_size": 4}
    run = rlgrad.train("a2c", "CartPole-v1", videos=1, run_dir=tmp_path / "a", **QUICK, **options)
    assert len(events(run.path).Tensors(videos.TAG)) == 1


@mostly_slow("render_mode", [None, "rgb_array"])
def test_an_environment_given_as_an_object_is_filmed(render_mode, tmp_path):
    env = gymnasium.make("CartPole-v1", render_mode=render_mode)
    run = rlgrad.train("reinforce", env, videos=1, run_dir=tmp_path / "a", **QUICK | {"num_envs": None})
    assert len(events(run.path).Tensors(videos.TAG)) == 1


@pytest.mark.slow
def test_an_environment_made_by_a_function_is_filmed(tmp_path):
    def make(render_mode=None):
        return gymnasium.make("CartPole-v1", render_mode=render_mode)

    run = rlgrad.train("reinforce", make, videos=1, run_dir=tmp_path / "a", **QUICK)
    assert len(events(run.path).Tensors(videos.TAG)) == 1


@mostly_slow(
    "env, reason",
    [
        (lambda: gymnasium.make("CartPole-v1"), "without the render mode rgb_array"),
        (lambda render_mode: gymnasium.make("CartPole-v1", render_mode="drawing"), "videos cannot draw"),
        ("rlgrad/CartPole-v1", r"written in TensorFlow have no render\(\)"),
    ],
    quick=2,
)
def test_what_cannot_be_drawn_is_refused_before_there_is_a_run(env, reason, tmp_path):
    gymnasium.register_envs(rlgrad.envs)  # which makes the last one known to Gymnasium
    with pytest.raises(ValueError, match=reason):
        rlgrad.train("a2c", env, videos=1, run_dir=tmp_path / "a", **QUICK)
    assert not (tmp_path / "a").exists()


def test_a_renderer_that_fails_ends_the_videos_and_not_training(tmp_path, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("the graphics card is gone")

    monkeypatch.setattr(videos, "play", broken)
    run = rlgrad.train("a2c", "CartPole-v1", videos=4, run_dir=tmp_path / "a", **QUICK)
    assert run.timesteps == 1024
    said = [message for message in caplog.messages if "graphics card" in message]
    assert said == ["No videos from here on, training continues: the graphics card is gone"]


@pytest.mark.slow
def test_a_script_without_a_guard_films_what_it_registered_itself_and_what_has_a_name(tmp_path):
    """Its own class exists in its process alone; the process that draws a named one must not run the script once more."""
    script = tmp_path / "script.py"
    script.write_text(
        "import gymnasium, rlgrad\n"
        "from rlgrad.policies import actors\n"
        "actors.gains_from_xla = lambda model: False\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Own(CartPoleEnv): ...\n"
        "gymnasium.register('Own-v0', Own, max_episode_steps=20)\n"
        "gymnasium.register('Named-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=20)\n"
        f"options = {QUICK!r}\n"
        "for name in ('Own-v0', 'Named-v0'):\n"
        "    rlgrad.train('reinforce', name, videos=1, run_dir=name, **options)\n"
        "print('once')\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "once\n"), done.stderr
    for name in ("Own-v0", "Named-v0"):
        assert len(events(tmp_path / name).Tensors(videos.TAG)) == 1
