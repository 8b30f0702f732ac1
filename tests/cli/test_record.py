"""`rlgrad record` and `watch`: the films, looked into with ffmpeg and Pillow, and what cannot be filmed."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence

import rlgrad
from rlgrad.cli import main
from rlgrad.environments.drawing import DrawnEnv
from rlgrad.playback.films import film

QUICK = ["--total-timesteps", "128", "--num-envs", "2", "--num-steps", "32", "--evaluation-episodes", "0"]
QUICK += ["--hidden-sizes", "8"]
OWN = '''
import gymnasium, numpy as np, os
from gymnasium import spaces

class Count(gymnasium.Env):
    """Its picture is as grey as the step is late, and its last step is its tenth."""
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space, action_space = spaces.Box(0.0, 1.0, (1,)), spaces.Discrete(2)

    def __init__(self, render_mode=None, fail=""):
        self.render_mode, self.fail, self.base = render_mode, fail, 0

    def lighten(self, base, more=0):
        if base < 0:
            raise ValueError("no such grey")
        self.base = base + more

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.fail == "step":
            raise KeyError("lost")
        return np.full(1, self.steps / 10, np.float32), 1.0, self.steps == 10, False, {}

    def render(self):
        if self.fail == "die":
            os._exit(3)
        if self.fail == "render":
            raise OSError("no screen")
        return np.full((11, 13, 3), self.base + 20 * self.steps, np.uint8)

class Blind(Count):
    metadata = {"render_modes": []}
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory, trained):
    folder = tmp_path_factory.mktemp("record")
    (folder / "own.py").write_text(OWN)
    assert main(["train", "reinforce", f"{folder}/own.py:Count", *QUICK, "--run-dir", str(folder / "own")]) == 0
    shutil.copytree(folder / "own", folder / "blind")  # the same run, of a class that says it cannot draw
    config = folder / "blind" / "config.yaml"
    config.write_text(config.read_text().replace("own.py:Count", "own.py:Blind"))
    shutil.copytree(trained(), folder / "cart")
    return folder


@pytest.fixture(autouse=True)
def in_the_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


def frames(path):
    """Greys of the middle pixel, and pictures a second, as ffmpeg reads a film."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    read = imageio_ffmpeg.read_frames(str(path))
    meta = next(read)
    width, height = meta["size"]
    pictures = [np.frombuffer(picture, np.uint8).reshape(height, width, 3) for picture in read]
    return np.array([picture[5, 6, 0] for picture in pictures], float), meta


def test_an_mp4_holds_each_picture_of_each_episode_at_the_environments_rate(capsys):
    assert main(["record", "own", "--output", "own.mp4", "--episodes", "2"]) == 0
    assert capsys.readouterr().out == "Wrote own.mp4\n" + 2 * "An episode of 10 steps, return 10.0.\n"
    greys, meta = frames("own.mp4")
    assert meta["fps"] == 10.0
    assert meta["size"] == (14, 12)  # each side made even
    np.testing.assert_allclose(greys, 2 * [20.0 * step for step in range(11)], atol=4)


def test_a_gif_holds_the_same(capsys):
    assert main(["record", "own", "--output", "own.gif", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == [{"steps": 10, "return": 10.0, "cut": False}]
    with Image.open("own.gif") as picture:
        assert picture.info["duration"] == 100
    assert greys_of("own.gif") == [20 * step for step in range(11)]


def greys_of(file):
    with Image.open(file) as picture:
        return [frame.convert("RGB").getpixel((6, 5))[0] for frame in ImageSequence.Iterator(picture)]


def test_an_episode_is_played_in_an_environment_that_was_called_as_those_of_the_run(folder, capsys):
    """What callbacks did while it trained, in their order, and then what the command says."""
    assert main(["train", "reinforce", f"{folder}/own.py:Count", *QUICK, "--run-dir", "told"]) == 0
    run = rlgrad.load("told", verbose=False)
    run.call_envs("lighten", 10, more=5)
    run.set_env_attr("base", 21)
    run.call_envs("lighten", 5)
    run.save()
    run.close()
    said = {
        (): 5,
        ("--call-envs", "lighten=30"): 30,
        ("--call-envs", "lighten=[30, 2]"): 32,
        ("--call-envs", "lighten=30", "--set-env-attr", "base=7"): 7,
    }
    for options, base in said.items():
        assert main(["record", "told", "--output", "told.gif", *options]) == 0
        assert greys_of("told.gif") == [base + 20 * step for step in range(11)], options
    capsys.readouterr()


def test_a_gif_leaves_out_what_its_viewers_cannot_follow(tmp_path):
    with film(tmp_path / "fast.gif", 100.0) as write:
        for step in range(8):
            write(np.full((4, 4, 3), 30 * step, np.uint8))
    with Image.open(tmp_path / "fast.gif") as picture:
        assert (picture.n_frames, picture.info["duration"]) == (2, 40)


def test_an_episode_that_is_too_long_is_left(capsys):
    assert main(["record", "own", "--output", "short.gif", "--max-steps", "4"]) == 0
    assert "An episode of 4 steps, return 4.0 so far." in capsys.readouterr().out


def test_gymnasiums_own_environments_are_drawn_without_a_display(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    assert main(["record", "cart", "--output", "cart.gif", "--max-steps", "3"]) == 0
    with Image.open("cart.gif") as picture:
        assert picture.size == (600, 400)


def test_the_process_that_draws_has_no_tensorflow():
    code = "import sys, rlgrad.environments.drawing; print('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.slow
def test_mujoco_is_drawn_without_a_display(tmp_path, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    assert main(["train", "ppo", "InvertedPendulum-v5", *QUICK, "--run-dir", str(tmp_path / "r")]) == 0
    assert main(["record", str(tmp_path / "r"), "--output", str(tmp_path / "p.gif"), "--max-steps", "3"]) == 0
    with Image.open(tmp_path / "p.gif") as picture:
        assert np.asarray(picture.convert("RGB")).std() > 1.0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "no run folder"),
        (["own", "--output", "film.avi"], r"ends in \.mp4 or \.gif, got 'film\.avi'"),
        (["own", "--output", "nowhere/film.gif"], "There is no folder 'nowhere'"),
        (["own", "--episodes", "0"], "--episodes is at least 1"),
        (["own", "--seed", "-1"], "--seed is at least 0"),
        (["own", "--env-kwargs", "fail"], "name=value: got 'fail' alone"),
        (["own", "--output", "f.gif", "--env-kwargs", "fial=1"], "cannot be made: TypeError.*'fial'"),
        (["own", "--output", "f.gif", "--env-kwargs", "fail=render"], "cannot draw itself here: OSError: no screen"),
        (["own", "--output", "f.gif", "--env-kwargs", "fail=die"], "that draws .*Count died with exit code 3"),
        (["blind", "--output", "f.gif", "--trust"], r"metadata\['render_modes'\] are \[\], and 'rgb_array' is needed"),
        (["own", "--output", "f.gif", "--call-envs", "lihgten=1"], "Count has no 'lihgten'. Did you mean 'lighten'"),
        (["own", "--output", "f.gif", "--call-envs", "lighten=-1"], "lighten raised ValueError: no such grey"),
        (["own", "--output", "f.gif", "--set-env-attr", "base"], "--set-env-attr takes name value, or name=value"),
        (["own", "--output", "f.gif", "--wrappers", "FrameStackObservation(stack_size=2)"], r"shape \(1,\).*\(2, 1\)"),
    ],
)
def test_what_cannot_be_filmed_is_said_in_a_sentence(arguments, expected, capsys):
    assert main(["record", *arguments]) == 2
    assert re.search(expected, capsys.readouterr().err)


def test_an_error_in_the_environment_keeps_its_traceback():
    with pytest.raises(RuntimeError, match=r"failed in step:\n(.|\n)*own\.py(.|\n)*KeyError: 'lost'"):
        main(["record", "own", "--output", "f.gif", "--env-kwargs", "fail=step"])


def test_an_environment_written_in_tensorflow_is_drawn_as_gymnasium_draws_it():
    env = DrawnEnv("rlgrad/CartPole-v1", "rgb_array", env_kwargs={}, wrappers=(), max_episode_steps=None)
    try:
        env.reset(seed=0)
        picture = env.render()
    finally:
        env.close()
    assert (picture.shape, picture.dtype) == ((400, 600, 3), np.uint8)


def test_without_imageio_ffmpeg_the_error_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert main(["record", "own", "--output", "own.mp4"]) == 2
    assert "pip install 'rlgrad[video]'" in capsys.readouterr().err


def test_watch_writes_a_gif_where_there_is_no_display(monkeypatch, folder, capsys):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["watch", "own"]) == 0
    assert "Wrote own/episode.gif" in capsys.readouterr().out
    assert (folder / "own" / "episode.gif").read_bytes().startswith(b"GIF8")
