"""Own folders are never asked about; others execute code of files and modules only where the user says so."""

import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml

import rlgrad
from rlgrad.cli import main
from rlgrad.core import installed_code, registry
from rlgrad.runs import trust
from rlgrad.runs.permissions import permissions

QUICK = {"total_timesteps": 64, "num_envs": 2, "num_steps": 16, "hidden_sizes": (4,), "evaluation_episodes": 0}
QUICK |= {"verbose": False, "logs": ("csv",)}
WORDS = [
    "--total-timesteps",
    "64",
    "--num-envs",
    "2",
    "--num-steps",
    "16",
    "--evaluation-episodes",
    "0",
    "--logs",
    "csv",
]
CODE = """
import gymnasium
import rlgrad

class Mine(rlgrad.Agent):
    def credit(self, batch, now):
        return {"log_prob": batch.advantages, "value": batch.returns - now.value}

class Same(gymnasium.Wrapper):
    pass

gymnasium.register("Own-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=20)
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The user's state, a folder of work with code of the user's own, and Python started there."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.syspath_prepend(tmp_path / "work")
    yield tmp_path
    sys.modules.pop("mine", None)


def change(folder, **settings):
    content = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(content | settings))


@pytest.fixture
def own(home):
    """A run of an agent in a file, an environment and a wrapper of a module beside it."""
    run = rlgrad.train("mine.py:Mine", "mine:Own-v0", wrappers=["mine:Same"], run_dir="runs/a", **QUICK)
    run.close()
    return home / "work" / "runs" / "a"


def test_ones_own_run_is_used_without_a_word_by_every_command(own, capsys, caplog):
    rlgrad.load(own, verbose=False).close()
    assert main(["evaluate", "runs/a", "--episodes", "1"]) == 0
    assert main(["resume", "runs/a", "--total-timesteps", "128"]) == 0
    assert main(["train", "--from", "runs/a", "--run-dir", "runs/b"]) == 0
    assert main(["train", "runs/a/config.yaml", "--run-dir", "runs/c"]) == 0
    assert main(["evaluate", "runs/b", "--episodes", "1"]) == 0
    change(own, seed=3)
    assert main(["evaluate", "runs/a", "--episodes", "1"]) == 0, "a setting that names no code may be changed"
    assert "trust" not in caplog.text + capsys.readouterr().err


def test_an_ordinary_run_leaves_no_record(home):
    rlgrad.train("a2c", "CartPole-v1", run_dir="runs/a", **QUICK).close()
    assert not (home / "state").exists()


def test_a_copy_is_asked_about_once_and_the_question_says_what_would_run(own, home, capsys, caplog):
    shutil.copytree(own, "copy")
    assert main(["evaluate", "copy", "--episodes", "1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"rlgrad: copy would execute the file {home / 'work' / 'mine.py'} (agent: ")
    assert "and 2 more of the kind" in said
    assert "--trust" in said
    assert main(["evaluate", "copy", "--episodes", "1", "--trust"]) == 0
    told = [record.getMessage() for record in caplog.records if "is trusted to" in record.getMessage()]
    assert [text.partition(" is trusted to ")[2].split()[0] for text in told] == ["execute", "import", "import"]
    assert main(["evaluate", "copy", "--episodes", "1"]) == 0


def test_what_takes_the_place_of_ones_own_run_can_do_no_more_than_that_run(own, home):
    (home / "work" / "other.py").write_text(f"open({str(home / 'executed')!r}, 'w')\n{CODE}")
    change(own, wrappers=["mine:Same", "other:Same"])
    with pytest.raises(ValueError, match="would import the module other from"):
        rlgrad.load(own, verbose=False)
    shutil.rmtree(own)
    own.mkdir()
    (own / "config.yaml").write_text(
        f"agent: {{name: '{home}/work/other.py:Mine'}}\nenv: CartPole-v1\ntotal_timesteps: 64\n"
    )
    with pytest.raises(ValueError, match=r"would execute the file .*other\.py"):
        rlgrad.load(own, verbose=False)
    assert not (home / "executed").exists()


def test_code_in_the_folder_is_trusted_as_it_is_and_no_other_content(own, home):
    shutil.copy("mine.py", own / "inside.py")
    change(own, agent={"name": f"{own}/inside.py:Mine", "num_envs": 2, "num_steps": 16})
    with pytest.raises(ValueError, match="which came with it"):
        rlgrad.load(own, verbose=False)
    rlgrad.load(own, verbose=False, trust=True).close()
    rlgrad.load(own, verbose=False).close()
    (own / "inside.py").write_text(f"{CODE}\nopen({str(home / 'executed')!r}, 'w')")
    with pytest.raises(ValueError, match="which came with it"):
        rlgrad.load(own, verbose=False)
    assert not (home / "executed").exists()


def test_a_config_that_names_code_is_asked_about_once_wherever_it_lies(home, capsys):
    settings = {"agent": {"name": "mine.py:Mine"}, "env": "CartPole-v1"}
    (home / "work" / "own.yaml").write_text(yaml.safe_dump(settings))
    assert main(["train", "own.yaml", *WORDS, "--run-dir", "a"]) == 2
    assert "own.yaml would execute the file" in capsys.readouterr().err
    assert main(["train", "own.yaml", "--trust", *WORDS, "--run-dir", "a"]) == 0
    assert main(["train", "own.yaml", *WORDS, "--run-dir", "b"]) == 0
    assert main(["train", "mine.py:Mine", "CartPole-v1", *WORDS, "--run-dir", "c"]) == 0, (
        "said by the user, not by a file"
    )


def test_a_record_that_cannot_be_written_stops_no_training(home, monkeypatch, caplog):
    (home / "state").write_text("a file is in its place")
    rlgrad.train("mine.py:Mine", "CartPole-v1", run_dir="a", **QUICK).close()
    assert "Loading a will ask for --trust" in caplog.text


def test_the_records_are_where_the_system_keeps_the_state_of_programs(monkeypatch, tmp_path):
    assert trust.state_folder() == tmp_path / "state" / "rlgrad" / "trusted"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert trust.state_folder() == tmp_path / ".local" / "state" / "rlgrad" / "trusted"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that counts as this interpreter's, and a function that installs a distribution there."""
    place = tmp_path / "site-packages"
    place.mkdir()
    folders = (str(place), *installed_code.folders())
    monkeypatch.setattr(installed_code, "folders", lambda: folders)
    monkeypatch.syspath_prepend(place)
    installed_code._made_for_us.cache_clear()
    importlib.invalidate_caches()

    def install(name, files, requires="gymnasium", editable=None, **metadata):
        home = place / f"{name}-1.0.dist-info"
        home.mkdir()
        (home / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\nRequires-Dist: {requires}\n")
        for path, content in files.items():
            file = (editable or place) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        (home / "RECORD").write_text("".join(f"{path},,\n" for path in files) if editable is None else "")
        if editable is not None:
            origin = {"url": f"file://{editable}", "dir_info": {"editable": True}}
            (home / "direct_url.json").write_text(json.dumps(origin))
        for file, text in metadata.items():
            (home / f"{file}.txt").write_text(text)
        installed_code._made_for_us.cache_clear()
        installed_code._folders.cache_clear()
        importlib.invalidate_caches()

    yield install
    installed_code._made_for_us.cache_clear()


EXECUTED = "raise SystemExit('executed')"


def brings(module, folder="/nowhere/run"):
    before = set(sys.modules)
    found = installed_code.distribution_of(module, Path(folder))
    assert set(sys.modules) == before, "looking imports nothing"
    return found


def test_modules_of_distributions_made_for_rlgrad_or_gymnasium_are_installed(site):
    site("pack_one", {"pack_one/__init__.py": EXECUTED, "pack_one/deep/er.py": EXECUTED})
    site("pack_two", {"pack_two.py": EXECUTED}, requires='rlgrad; extra == "test"')
    site("pack_three", {"pack_three.py": EXECUTED}, requires="numpy")
    site("pack_four", {"pack_four.py": EXECUTED}, requires="gymnasium-imitation")
    assert brings("pack_one") == brings("pack_one.deep.er") == "pack_one"
    assert brings("pack_two") == "pack_two"
    assert [brings(name) for name in ("pack_three", "pack_four", "pack_one.no", "os", "builtins", "__main__")] == [
        None
    ] * 6
    assert brings("gymnasium.wrappers") == "gymnasium"
    assert brings("rlgrad.agents.a2c") == "rlgrad"
    assert brings("rlgrad.cli.__main__") is None


def test_a_module_of_the_current_folder_takes_no_installed_ones_place(site, home):
    site("pack_one", {"pack_one/__init__.py": EXECUTED})
    (home / "work" / "pack_one.py").write_text(EXECUTED)
    sys.path.remove(str(home / "work"))
    sys.path.insert(0, str(home / "work"))
    assert brings("pack_one") is None, "what `import` would find here is the file in the current folder"


def test_a_namespace_is_installed_where_its_module_is(site, home):
    site("shared_one", {"shared/one.py": EXECUTED})
    (home / "work" / "shared").mkdir()
    (home / "work" / "shared" / "evil.py").write_text(EXECUTED)
    assert brings("shared.one") == "shared_one"
    assert brings("shared.evil") is None


def test_a_project_that_pip_install_e_was_given_is_installed(site, home, monkeypatch):
    project = home / "project"
    site(
        "declared",
        {"declared/__init__.py": EXECUTED, "setup_helper.py": EXECUTED},
        editable=project,
        top_level="declared\n",
    )
    site("plain", {"plain/__init__.py": EXECUTED, "runs/beside.py": EXECUTED}, editable=home / "src")
    monkeypatch.syspath_prepend(project)
    monkeypatch.syspath_prepend(home / "src")
    assert brings("declared") == "declared"
    assert brings("setup_helper") is None, "the project does not say that it installs this"
    assert brings("plain", home / "src" / "runs" / "theirs") == "plain"
    assert brings("runs.beside", home / "src" / "runs" / "theirs") is None, "it came beside the folder"
    assert brings("declared", project) is None, "nothing in the folder itself is installed"


def test_entry_points_of_the_current_folder_are_none(site, home, monkeypatch):
    points = "[rlgrad.agents]\n{0} = mine:Mine\na2c = mine:Mine\n"
    site("pack_one", {"pack_one.py": CODE}, entry_points=points.format("installed_agent"))
    for name in ("here", "rlgrad"):
        metadata = home / "work" / f"{name}-9.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9\n")
        (metadata / "entry_points.txt").write_text(points.format("agent_of_here"))
    elsewhere = home / "elsewhere"
    shutil.copytree(home / "work" / "here-9.dist-info", elsewhere / "there-9.dist-info")
    (elsewhere / "there-9.dist-info" / "entry_points.txt").write_text(points.format("agent_of_there"))
    (elsewhere / "there-9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: there\nVersion: 9\n")
    monkeypatch.syspath_prepend(elsewhere)  # said by the user
    agents = registry.agents()
    assert {"installed_agent", "agent_of_there"} <= set(agents)
    assert "agent_of_here" not in agents
    assert agents["a2c"].value == "rlgrad.agents.a2c:A2C"
    asked = [permissions(home, {"agent": {"name": name}}) for name in ("installed_agent", "agent_of_there", "a2c")]
    assert list(map(len, asked)) == [0, 1, 0]


@pytest.mark.parametrize("first", ["the project", "the installed copy"])
def test_what_pip_leaves_in_a_project_takes_no_installed_distributions_place(site, home, monkeypatch, first):
    """`pip install .` leaves an egg-info folder in the project; PYTHONPATH, or an editor, puts that on the path."""
    points = "[rlgrad.agents]\nof_pack_one = pack_one:Mine\n"
    site("pack_one", {"pack_one.py": CODE}, entry_points=points)
    left = home / "project" / "pack_one.egg-info"
    left.mkdir(parents=True)
    (left / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: pack_one\nVersion: 1\n")
    (left / "entry_points.txt").write_text(points)
    project = str(home / "project")
    monkeypatch.setattr(sys, "path", [project, *sys.path] if first == "the project" else [*sys.path, project])
    assert permissions(home, {"agent": {"name": "of_pack_one"}}) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"wrappers": ["TimeAwareObservation", "FrameStackObservation(stack_size=4)"]},
        {"wrappers": ["FilterObservation(filter_keys=['a'])", "TimeLimit(max_episode_steps=1000000)"]},
        {"wrappers": ["gymnasium.wrappers:ClipReward(min_reward=-1.0)"]},
        {"env_kwargs": {"map_name": "4x4", "is_slippery": False, "desc": ["SFF", "FHG"], "reward": {"goal": 1.5}}},
        {"env": "gymnasium.envs.classic_control:CartPole-v1"},
        {"env": "rlgrad/CartPole-v1", "collector": "auto", "logs": ["csv", "jsonl", "tensorboard"], "encoders": []},
        {"agent": {"name": "ppo", "update": {"type": "per_head", "policy": {"type": "trust_region"}}}},
        {"agent": {"name": "bc", "replay": {"data": "D4RL/door/human-v2", "data_digest": "0" * 64}}},
    ],
)
def test_ordinary_settings_need_no_permission(settings, tmp_path):
    assert permissions(tmp_path, settings) == []


def test_a_file_in_folders_with_brackets_and_colons_is_one_place(home):
    odd = home / "runs (1)" / "a:b"
    odd.mkdir(parents=True)
    shutil.copy("mine.py", odd / "mine.py")
    assert registry.split_call(f"{odd}/mine.py:Mine(x='c.py:d(')") == (f"{odd}/mine.py", "Mine(x='c.py:d(')")
    assert registry.split_call("FrameStackObservation(stack_size=4)") == ("", "FrameStackObservation(stack_size=4)")
    assert registry.split_call("a.b:C(url='http://x')") == ("a.b", "C(url='http://x')")
    run = rlgrad.train(f"{odd}/mine.py:Mine", "CartPole-v1", run_dir=odd / "run", **QUICK)
    run.close()
    rlgrad.load(odd / "run", verbose=False).close()


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_a_run_reached_through_a_link_is_the_run(own, home):
    (home / "latest").symlink_to(own)
    rlgrad.load(home / "latest", verbose=False).close()
