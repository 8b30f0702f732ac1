"""Completion, asked for as the shells ask; and a real bash in a terminal."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlgrad.cli import COMMANDS, main
from rlgrad.cli.commands.completion import candidates

HERE = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{HERE}:{os.environ['PATH']}", "TERM": "dumb", "PS1": "$ "}
needs_command = pytest.mark.skipif(not (HERE / "rlgrad").exists(), reason="rlgrad is not installed as a command")


def needs(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"no {shell} here")


@pytest.fixture(autouse=True)
def two_runs(tmp_path, monkeypatch):
    for name in ("runs/a", "runs/b", "alone"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("agent: {name: ppo}\n")
    (tmp_path / "notes.txt").write_text("")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", [*COMMANDS, "--help", "--version"]),
        ("eval", ["evaluate"]),
        ("train half-cheetah-p", ["half-cheetah-ppo"]),
        ("train reinf", ["reinforce"]),
        ("train ppo CartP", ["CartPole-v1"]),
        ("train ppo rlgrad/Br", ["rlgrad/Breakout-v1"]),
        ("train ppo --agent.gamma 0.9 CartP", ["CartPole-v1"]),
        ("train ppo --vec", ["--vectorization-mode"]),
        ("train ppo --vectorization-mode s", ["sync"]),
        ("train ppo --memory ", ["gru", "lstm"]),
        ("train ppo --memory=l", ["--memory=lstm"]),
        ("train ppo --squash-actions ", ["True", "False"]),
        ("train --from r", ["runs/a", "runs/b"]),
        ("evaluate ", ["alone", "runs/a", "runs/b"]),
        ("evaluate runs/", ["runs/a", "runs/b"]),
        ("evaluate runs/a --ep", ["--episodes"]),
        ("evaluate runs/a --episodes ", []),
        ("plot runs/a al", ["alone"]),
        ("record runs/a --sampled --out", ["--output"]),
        ("record runs/a --output ", []),
        ("record --wrappers X Y --se", ["--seed", "--set-env-attr"]),
        ("check Pendulum-", ["Pendulum-v1"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("nonsense ", []),
        ("agents ", []),
    ],
)
def test_what_is_offered(line, expected):
    assert candidates(["rlgrad", *line.split(" ")]) == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_offers_its_options(command):
    assert {"--help", "--json"} <= set(candidates(["rlgrad", command, "--"]))


def test_a_press_of_the_key_is_quick_and_imports_no_tensorflow():
    words = "\t".join(["rlgrad", "train", "ppo", ""])
    code = f"""
import sys
from importlib import import_module
from rlgrad.cli import COMMANDS, main
main(["completion", "candidates", {words!r}])
for module in COMMANDS.values():
    import_module(module).parser()
assert "tensorflow" not in sys.modules and "tyro" not in sys.modules
"""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "CartPole-v1" in done.stdout.splitlines()
    assert time.perf_counter() - begun < 3.0  # 0.4 s where nothing else runs


def test_completion_of_no_shell_names_those_there_are(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "tcsh"])
    said = capsys.readouterr().err
    assert [shell for shell in ("bash", "zsh", "fish") if shell not in said] == []


@needs_command
@needs("bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rlgrad eval", ["evaluate"]),
        ("rlgrad plot runs/a ", ["alone", "runs/a", "runs/b"]),
        ("rlgrad train ppo --memory=l", ["lstm"]),  # bash has cut the word at '='
        ("rlgrad record runs/a --output ", [""]),
    ],
)
def test_bash_fills_its_reply(line, expected):
    script = f"""
eval "$(rlgrad completion bash)"
complete -p rlgrad | grep -q -- '-F _rlgrad' || exit 1
COMP_LINE={line!r} COMP_POINT={len(line)} COMP_WORDS=() COMP_CWORD=0
_rlgrad rlgrad
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stdout.splitlines() == expected, done.stderr


@needs_command
@needs("bash")
def test_the_tab_key_completes_in_a_terminal_with_bash():
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], ENVIRONMENT)
    try:
        os.write(terminal, b'eval "$(rlgrad completion bash)"; echo rea""dy\n')
        assert "ready" in read_until(terminal, "ready")
        for typed, completed in (
            (b"rlgrad train half-cheetah-p\t", "train half-cheetah-ppo "),
            (b"--vec\t", "--vectorization-mode "),
            (b"\x15rlgrad record runs/a --output no\t", "--output notes.txt "),  # file names, where nothing is offered
        ):
            os.write(terminal, typed)
            assert completed in read_until(terminal, completed)
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def read_until(terminal, text, seconds=15.0):
    seen, end = "", time.monotonic() + seconds
    while text not in seen and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
    return seen


ZSH = """
compdef() {}; compadd() { shift; print -l -- "$@" }; _files() { print FILES }
eval "$(rlgrad completion zsh)"
"""


@needs_command
@needs("zsh")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "half-cheetah-p"], ["half-cheetah-ppo"]),
        (["evaluate", ""], ["alone", "runs/a", "runs/b"]),
        (["record", "runs/a", "--output", ""], ["FILES"]),
    ],
)
def test_zsh_is_given_the_same(words, expected):
    given = " ".join(f"'{word}'" for word in ["rlgrad", *words])
    script = f"{ZSH}words=({given}); CURRENT={len(words) + 1}; PREFIX='{words[-1]}'; _rlgrad"
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stdout.splitlines() == expected, done.stderr


@needs_command
@needs("fish")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rlgrad train half-cheetah-p", ["half-cheetah-ppo"]),
        ("rlgrad evaluate ", ["alone", "runs/a", "runs/b"]),
        ("rlgrad record runs/a --output not", ["notes.txt"]),
    ],
)
def test_fish_is_given_the_same(line, expected, tmp_path):
    script = f'rlgrad completion fish | source; complete -C "{line}"'
    environment = ENVIRONMENT | {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "home")}
    done = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, env=environment)
    assert [offer.split("\t")[0] for offer in done.stdout.splitlines()] == expected, done.stderr
