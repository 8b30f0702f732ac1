"""What the layout promises: arrows point one way, the tape stays in one place, light imports stay light."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.slow import mostly_slow

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [p for folder in ("rlgrad", "agents", "envs") for p in sorted((ROOT / folder).rglob("*.py"))]


def test_the_tape_occurs_only_in_the_gradient_package():
    users = {p.relative_to(ROOT).parts[:2] for p in SOURCES if "GradientTape" in p.read_text()}
    assert users == {("rlgrad", "gradients")}


def test_the_framework_imports_no_particular_agent_environment_or_config():
    pattern = re.compile(r"(from|import)\s+rlgrad\.(agents|envs|configs)\b")
    assert [p for p in SOURCES if p.is_relative_to(ROOT / "rlgrad") and pattern.search(p.read_text())] == []


def test_private_modules_of_keras_and_tensorflow_are_imported_at_most_where_a_test_pins_what_they_do():
    pattern = re.compile(r"^\s*(from|import)\s+(tensorflow\.python|keras\.src|tensorflow_probability|pickle)", re.M)
    importing = [p.relative_to(ROOT).as_posix() for p in SOURCES if pattern.search(p.read_text())]
    assert importing == ["rlgrad/core/keras_internals.py", "rlgrad/core/tensorflow_internals.py"]


def test_records_are_frozen_but_for_these():
    """A frozen dataclass can be a key, and whoever holds one knows that it stays what it was."""
    made = re.compile(r"^\s*@dataclass\b(?!.*frozen=True)", re.M)
    assert [p.relative_to(ROOT).as_posix() for p in SOURCES if made.search(p.read_text())] == [
        "rlgrad/cli/options.py",
        "rlgrad/gradients/programs/answers.py",
        "rlgrad/gradients/programs/cache.py",
        "rlgrad/gradients/questions/heads.py",
        "rlgrad/runs/standing.py",
    ]


def imported(statement):
    """The top-level modules that a statement leaves imported in a fresh interpreter."""
    code = f"import sys; {statement}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_the_gradient_package_needs_tensorflow_and_numpy_alone():
    others = ["gymnasium", "yaml", "tyro", "matplotlib", "tensorboard", "pygame"]
    code = f"""
import sys
sys.modules.update(dict.fromkeys({others}))  # importing one of these now fails
import keras, numpy as np
from rlgrad import gradients
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
print(len(gradients.gradient(model, np.ones((4, 3)), output=gradients.LogProb(np.zeros(4, int)))))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "2\n", result.stderr


def test_importing_rlgrad_or_its_command_line_does_not_import_tensorflow():
    assert "tensorflow" not in imported("import rlgrad, rlgrad.cli")


AFTER = "import gc, sys; print('tensorflow' in sys.modules and gc.isenabled())"


@mostly_slow("name", ["cartpole", "ppo"])
def test_a_command_shows_nothing_that_tensorflow_says_when_it_is_imported_and_collects_garbage_after_it(name):
    code = f"""
from rlgrad.cli import main
try:
    main(["train", {name!r}, "--help"])
except SystemExit as stop:
    assert stop.code == 0
{AFTER}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.endswith("True\n")


@pytest.mark.slow
def test_garbage_is_collected_after_the_imports_of_a_script():
    code = f"import rlgrad; rlgrad.train; {AFTER}"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"


def test_help_takes_less_than_a_second():
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "rlgrad.cli", "--help"], check=True, capture_output=True)
    assert time.perf_counter() - begun < 1.0


@pytest.mark.parametrize("as_command", [False, True])
def test_without_tensorflow_the_import_says_what_to_install(tmp_path, as_command):
    code = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "tensorflow" else find(name, *rest)
sys.argv[0] = {"bin/rlgrad" if as_command else "script.py"!r}
import rlgrad
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode != 0
    assert "rlgrad[cpu]" in result.stderr
    assert "rlgrad[gpu]" in result.stderr
    assert ("Traceback" in result.stderr) is not as_command


def test_every_public_name_can_be_imported():
    import rlgrad

    for name in rlgrad.__all__:
        assert getattr(rlgrad, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = rlgrad.trian
