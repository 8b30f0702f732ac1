"""Run folders that a stranger might send: a corpus, each made from an ordinary run by one function.

`CORPUS` has them by name. A function is given a `Scene`, and changes the folder in it. Code that they bring creates the file
`executed` beside the folder, and paths that they name outside of it are in the folder `outside`, which must stay as it is.
"""

import hashlib
import io
import json
import os
import py_compile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

LOADING = ("evaluate", "resume", "inspect", "export", "watch", "record", "load")
REPEATING = ("repeat", "train", "tune")
READING = ("plot", "compare")
CORPUS = {}


@dataclass
class Scene:
    """A hostile folder, and what lies around it."""

    folder: Path
    outside: Path

    @property
    def code(self):
        return f"open({str(self.folder.parent / 'executed')!r}, 'w').close()\nclass Evil: pass\n"

    @property
    def checkpoint(self):
        return max((self.folder / "checkpoints").glob("0*.npz"))

    def change(self, **settings):
        """Change settings of config.yaml; `agent__name` is `name` of `agent`."""
        file = self.folder / "config.yaml"
        content = yaml.safe_load(file.read_text())
        for name, value in settings.items():
            *way, last = name.split("__")
            inner = content
            for key in way:
                inner = inner[key]
            inner[last] = self.filled(value)
        file.write_text(yaml.safe_dump(content, sort_keys=False))

    def filled(self, value):
        """Put the paths of the scene in the place of FOLDER, HERE and OUTSIDE."""
        if isinstance(value, str):
            for name, path in (("FOLDER", self.folder), ("HERE", self.folder.name), ("OUTSIDE", self.outside)):
                value = value.replace(name, str(path))
            return value
        if isinstance(value, dict):
            return {key: self.filled(each) for key, each in value.items()}
        return [self.filled(each) for each in value] if isinstance(value, list) else value


@dataclass
class Case:
    """How a folder is made hostile, and the commands that must refuse it."""

    make: object
    refused_by: tuple


def hostile(*refused_by):
    def register(function):
        CORPUS[function.__name__] = Case(function, refused_by)
        return function

    return register


def settings(refused_by, **cases):
    """Register folders whose config.yaml has other settings. All have evil.py and what Python makes of it."""

    def register(name, changes):
        def make(scene):
            plant(scene)
            scene.change(**changes)

        CORPUS[name] = Case(make, refused_by)

    for name, changes in cases.items():
        register(name, changes)


def plant(scene):
    """Put code into the folder, and beside it, in every form that Python imports."""
    beside = scene.folder.parent
    for file in (scene.folder / "evil.py", scene.folder / "a(b" / "evil.py", beside / "beside.py", beside / "ev.py"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(scene.code)
    (beside / "google").mkdir()
    (beside / "google" / "evil.py").write_text(scene.code)
    py_compile.compile(str(scene.folder / "evil.py"), cfile=str(scene.folder / "compiled.pyc"))
    for home in (scene.folder, beside):
        for dist in ("evil-1.0", "rlgrad-99.0"):
            metadata = home / f"{dist}.dist-info"
            metadata.mkdir()
            (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist.split('-')[0]}\nVersion: 1\n")
            groups = ("agents", "updates", "collectors", "encoders", "logs", "envs")
            entries = "".join(f"[rlgrad.{group}]\na2c = beside:Evil\nstolen = beside:Evil\n" for group in groups)
            (metadata / "entry_points.txt").write_text(entries)
            (metadata / "top_level.txt").write_text("beside\nevil\n")
            (metadata / "RECORD").write_text("beside.py,,\nevil.py,,\n")


ALL = LOADING + REPEATING
settings(
    ALL,
    agent_file={"agent__name": "FOLDER/evil.py:Evil"},
    agent_file_relative={"agent__name": "HERE/evil.py:Evil"},
    agent_file_beside={"agent__name": "beside.py:Evil"},
    agent_file_through_a_link={"agent__name": "/proc/self/cwd/beside.py:Evil"},
    agent_bytecode={"agent__name": "HERE/compiled.pyc:Evil"},
    agent_bracket={"agent__name": "HERE/a(b/evil.py:Evil"},
    agent_path_without_suffix={"agent__name": "HERE/evil:Evil"},
    agent_namespace={"agent__name": "HERE.evil:Evil"},
    agent_module_beside={"agent__name": "beside:Evil"},
    agent_in_a_shared_namespace={"agent__name": "google.evil:Evil"},
    agent_entry_point_of_a_dist_info={"agent__name": "stolen"},
    agent_of_python={"agent__name": "os:system"},
    agent_builtin={"agent__name": "builtins:exec"},
    agent_that_opens_a_browser={"agent__name": "antigravity:Evil"},
    agent_program_of_rlgrad={"agent__name": "rlgrad.cli.__main__:main"},
    agent_program_of_pip={"agent__name": "pip.__main__:main"},
    agent_of_another_package={"agent__name": "matplotlib.tests.test_api:Evil"},
    agent_dots={"agent__name": "..evil:Evil"},
    agent_nothing={"agent__name": ":"},
    agent_no_text={"agent__name": ["evil.py:Evil"]},
    agent_is_a_text={"agent": "evil.py:Evil"},
    update_file={"agent__update": {"type": "FOLDER/evil.py:Evil"}},
    update_inside={"agent__update": {"type": "per_head", "policy": {"type": "HERE/evil.py:Evil"}}},
    update_callable={"agent__update": {"type": "operator:call"}},
    update_list={"agent__update": {"type": ["a"]}},
    optimizer_module={"agent__update__optimizer": {"module": "beside", "class_name": "Evil", "config": {}}},
    optimizer_hub={"agent__update__optimizer": {"module": "keras_hub.beside", "class_name": "Evil", "config": {}}},
    optimizer_lambda={"agent__update__optimizer": {"class_name": "__lambda__", "config": {"value": "x"}}},
    optimizer_function={
        "agent__update__optimizer": {"module": "keras.utils", "class_name": "function", "config": "get_file"}
    },
    optimizer_huge={"agent__update__optimizer": {"module": "keras.optimizers", "class_name": "Adam", "config": 7}},
    env_module={"env": "beside:X-v0"},
    env_namespace={"env": "HERE.evil:X-v0"},
    env_file={"env": "FOLDER/evil.py:Evil"},
    env_bracket={"env": "HERE/a(b/evil.py:Evil"},
    env_bytecode={"env": "HERE/compiled.pyc:X-v0"},
    env_entry_point={"env": "stolen"},
    env_of_python={"env": "this:X-v0"},
    env_program={"env": "rlgrad.cli.__main__:X-v0"},
    env_no_text={"env": 5},
    env_colons={"env": ":::"},
    wrapper_chain={"wrappers": ["unittest.mock:MagicMock(return_value='x')", "operator:call", "builtins:exec"]},
    wrapper_module={"wrappers": ["beside:Evil"]},
    wrapper_file={"wrappers": ["FOLDER/evil.py:Evil(x=1)"]},
    wrapper_that_is_a_function={"wrappers": ["gymnasium:make"]},
    wrapper_that_is_a_class={"wrappers": ["gymnasium.spaces:Text(max_length=3)"]},
    wrapper_that_films={"wrappers": ["RecordVideo(video_folder='OUTSIDE/films')"]},
    wrapper_that_films_by_its_module={"wrappers": ["gymnasium.wrappers:RecordVideo(video_folder='films')"]},
    wrapper_with_code={"wrappers": ["TransformReward(func='open')"]},
    wrapper_huge={"wrappers": ["FrameStackObservation(stack_size=10000000000)"]},
    wrapper_nested={"wrappers": ["FrameStackObservation(stack_size=" + "(" * 5000]},
    wrapper_expression={"wrappers": ["FrameStackObservation(stack_size=open('x'))"]},
    collector_callable={"collector": "subprocess:run"},
    collector_file={"collector": "HERE/evil.py:Evil"},
    collector_entry_point={"collector": "stolen"},
    encoder_file={"encoders": ["FOLDER/evil.py:Evil"]},
    encoder_callable={"encoders": ["pickle:loads"]},
    encoder_entry_point={"encoders": ["stolen"]},
    log_file={"logs": ["FOLDER/evil.py:Evil"]},
    log_callable={"logs": ["logging:FileHandler(filename='OUTSIDE/log')"]},
    log_module={"logs": ["beside:Evil(x=1)"]},
    env_kwargs_path={"env_kwargs": {"xml_file": "FOLDER/model.xml"}},
    env_kwargs_module={"env_kwargs": {"make": [{"of": "beside:X-v0"}]}},
    env_kwargs_huge={"env_kwargs": {"size": 10**12}},
    env_kwargs_keys={"env_kwargs": {3: "x"}},
    many_envs={"agent__num_envs": 10**9},
    many_envs_one_by_one={"agent__num_envs": 2**20, "vectorization_mode": "sync"},
    many_processes={"agent__num_envs": 100_000, "vectorization_mode": "async"},
    many_steps={"agent__num_steps": 10**12},
    more_than_the_memory={
        "agent__num_envs": 2**20,
        "agent__num_steps": 2**24,
        "env": "rlgrad/CartPole-v1",
        "vectorization_mode": "auto",
    },
    wide_layers={"hidden_sizes": [10**9]},
    many_layers={"hidden_sizes": [1] * 5_000},
    weights_beyond_the_memory={"hidden_sizes": [60_000] * 200},
    wide_memory={"memory": "gru", "memory_size": 10**9},
    endless={"total_timesteps": 10**30},
    many_evaluations={"evaluation_episodes": 10**12},
    negative_seed={"seed": -1},
    text_for_a_number={"agent__gamma": "much"},
    nan_discount={"agent__gamma": float("nan")},
    unknown_setting={"execute": "rm"},
)
settings(("resume", *REPEATING), log_that_sends={"logs": ["wandb"]}, log_entry_point={"logs": ["stolen"]})


def document(refused_by, **cases):
    """Register folders whose config.yaml is another text."""

    def register(name, text):
        def make(scene):
            content = scene.filled(text).encode() if isinstance(text, str) else text
            (scene.folder / "config.yaml").write_bytes(content)

        CORPUS[name] = Case(make, refused_by)

    for name, text in cases.items():
        register(name, text)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
document(
    ALL + READING,
    yaml_applies="agent: !!python/object/apply:os.system ['touch OUTSIDE/../executed']\n",
    yaml_names="agent: !!python/name:os.system\nenv: CartPole-v1\n",
    yaml_laughs=LAUGHS,
    yaml_merges=MERGES,
    yaml_contains_itself="a: &a [*a]\n",
    yaml_deep="a: " + "[" * 500,
    yaml_huge="a: 1\n" * 200_000,
    yaml_binary=b"\xff\xfe\x00\x01",
    yaml_list="- agent\n",
    yaml_empty="",
    yaml_no_integer="total_timesteps: !!int ''\n",
    yaml_no_date="seed: !!timestamp x\n",
)
document(ALL, yaml_large_integer="agent: {name: a2c}\nenv: CartPole-v1\ntotal_timesteps: 0x" + "f" * 100_000 + "\n")


def link(name, refused_by=(*LOADING, "repeat", "tune", *READING), target="OUTSIDE/bashrc", case=None):
    """Register a folder in which a file is a link to one outside."""

    def make(scene):
        path = scene.folder / name
        if path.is_dir():
            path.rename(scene.outside / "moved")
        path.unlink(missing_ok=True)
        path.symlink_to(scene.filled(target))

    CORPUS[case or f"link_{name}"] = Case(make, refused_by)


for each in ("unfinished.partial", "learning_curve.png", "metrics.csv", "evaluation.json", "run.json", "episode.gif"):
    link(each)
link("diagnostics.png")
link("checkpoints/best.npz")
link("checkpoints/unfinished.partial")
link("checkpoints", target="OUTSIDE/moved")
link("policy.keras", target="OUTSIDE/new")
link("metrics.jsonl", target="OUTSIDE/new")
link("config.yaml", target="OUTSIDE/config.yaml")
link("notes", target="/dev/zero", case="link_to_a_device")


@hostile(*LOADING, "repeat", "tune", *READING)
def pipe_for_metrics(scene):
    (scene.folder / "metrics.csv").unlink()
    os.mkfifo(scene.folder / "metrics.csv")


@hostile(*LOADING, "repeat", "tune", *READING)
def pipe_for_config(scene):
    (scene.folder / "config.yaml").unlink()
    os.mkfifo(scene.folder / "config.yaml")


def layer(kind, home="keras.layers", /, **config):
    return {"module": home, "class_name": kind, "config": config, "registered_name": None}


def model(name, *layers):
    """Register a folder with a model.json."""

    def make(scene):
        plant(scene)
        config = {"name": "sequential", "layers": [layer("InputLayer", batch_shape=[None, 4]), *layers]}
        content = json.dumps(scene.filled(layer("Sequential", "keras", **config)))
        (scene.folder / "model.json").write_text(content)

    CORPUS[f"model_{name}"] = Case(make, ALL)


model("module", layer("Evil", "beside"))
model("lambda", layer("Lambda", function=layer("__lambda__", None, code="x")))
model("saved_model", layer("TFSMLayer", filepath="FOLDER/saved"))
model("torch", layer("TorchModuleWrapper", module="x"))
model("file", layer("StringLookup", vocabulary="/etc/passwd"))
model("function", layer("Activation", activation=layer("function", "keras.utils") | {"config": "get_file"}))
model("saving", layer("Activation", activation=layer("function", "keras.saving") | {"config": "load_model"}))
model("typespec", layer("__typespec__", "os") | {"spec_name": "system"})
model("without_module", {"class_name": "Lambda", "config": {"function": ["x", None, None]}})
model("wide", layer("Dense", units=10**9))
model("beyond_the_memory", layer("Dense", units=3_000_000), layer("Dense", units=3_000_000))


@hostile(*ALL)
def model_deep(scene):
    (scene.folder / "model.json").write_text("[" * 200_000)


@hostile(*ALL)
def model_no_model(scene):
    (scene.folder / "model.json").write_text("[1, 2]")


def signed(content):
    """Put the digest under the bytes of an archive whose comment is 64 bytes long."""
    return content[:-64] + hashlib.sha256(content[:-64]).hexdigest().encode()


def rewritten(scene, change, compression=zipfile.ZIP_STORED):
    """Write the checkpoint anew, with a right checksum. `change` is given its members, as bytes by name."""
    with zipfile.ZipFile(scene.checkpoint) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = b"0" * 64
    for file in (scene.folder / "checkpoints").iterdir():
        file.write_bytes(signed(buffer.getvalue()))


def array(values, **options):
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def of_state(change):
    def in_members(members):
        state = json.loads(bytes(np.load(io.BytesIO(members["state.npy"]))))
        changed = change(state)
        members["state.npy"] = array(
            np.frombuffer(json.dumps(state if changed is None else changed).encode(), np.uint8)
        )

    return in_members


def checkpoint(name, change, **options):
    """Register a folder whose checkpoints are others, with a right checksum."""
    CORPUS[f"checkpoint_{name}"] = Case(lambda scene: rewritten(scene, change, **options), LOADING)


class Touch:
    """Pickled, it executes code."""

    def __reduce__(self):
        return exec, ("import pathlib; pathlib.Path('executed').touch()",)


def claims(members):
    """Of a few bytes, one member says that it is 32 GB large."""
    content = array(np.zeros(4, np.float32))
    members["policy/0.npy"] = content.replace(b"(4,), }" + b" " * 10, b"(8000000000,), }"[:17].ljust(17), 1)


checkpoint("pickle", lambda m: m.update({"policy/0.npy": array(np.array([Touch()]), allow_pickle=True)}))
checkpoint("packed", lambda m: m.update({"policy/0.npy": array(np.zeros(2**24))}), compression=zipfile.ZIP_DEFLATED)
checkpoint("claims", claims)
checkpoint("without_state", lambda m: m.pop("state.npy"))
checkpoint("without_arrays", lambda m: [m.pop(name) for name in list(m) if name.startswith("policy/")])
checkpoint("other_shapes", lambda m: m.update({"policy/0.npy": array(np.zeros((3, 3), np.float32))}))
checkpoint("texts", lambda m: m.update({"policy/0.npy": array(np.array(["x"] * 8))}))
checkpoint("records", lambda m: m.update({"policy/0.npy": array(np.zeros(3, [("a", "f4")]))}))
checkpoint("empty_state", of_state(lambda state: {"format": 3}))
checkpoint("list_state", of_state(lambda state: [state]))
checkpoint("text_counts", of_state(lambda state: state.update(timesteps="many")))
checkpoint("negative_counts", of_state(lambda state: state.update(timesteps=-5)))
checkpoint("collector_of_lies", of_state(lambda state: state.update(collector={"x": {"array": "nothing"}})))
checkpoint("journal_of_lies", of_state(lambda state: state.update(journal=[])))


@hostile(*LOADING)
def checkpoint_sparse(scene):
    for file in (scene.folder / "checkpoints").iterdir():
        os.truncate(file, 2**40)


@hostile(*LOADING)
def checkpoint_noise(scene):
    for file in (scene.folder / "checkpoints").iterdir():
        file.write_bytes(signed(os.urandom(5000)))


@hostile()
def checkpoint_folder(scene):
    (scene.folder / "checkpoints" / "999999999999.npz").mkdir()


def files(refused_by, **cases):
    """Register folders in which a file has another content; `__` in the name of a case ends its file's name."""

    def register(name, file, content):
        CORPUS[f"file_{name}"] = Case(lambda scene: (scene.folder / file).write_bytes(content), refused_by)

    for name, (file, content) in cases.items():
        register(name, file, content)


files(READING, metrics_noise=("metrics.csv", os.urandom(3000)), metrics_empty=("metrics.csv", b""))
files(
    READING,
    evaluation_noise=("evaluation.json", b"\xff\x00{"),
    evaluation_deep=("evaluation.json", b"[" * 100_000),
    evaluation_types=("evaluation.json", b'{"greedy": {"mean_return": "high"}, "sampled": 3, "reward_threshold": []}'),
    evaluation_list=("evaluation.json", b"[1]"),
)
files((), run_json_noise=("run.json", b"\xff{"), run_json_list=("run.json", b'{"resumed": 5}'))
files((), events_noise=("events.out.tfevents.1.x", os.urandom(999)))
files((), events_long=("events.out.tfevents.2.x", (2**62).to_bytes(8, "little") + b"0" * 99))


@hostile(*READING)
def metrics_sparse(scene):
    os.truncate(scene.folder / "metrics.csv", 2**40)
