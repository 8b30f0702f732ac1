"""Every Python block of the README and the guides runs as written, block after block in one namespace a file."""

import re
from pathlib import Path

import pytest
from helpers.slow import mostly_slow

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M)


WITH_BLOCKS = {str(page.relative_to(ROOT)): page for page in PAGES if blocks(page)}
TAKING_SECONDS = (  # `.ci/run` runs these, too
    "docs/README.md",
    *(str(page.relative_to(ROOT)) for page in (ROOT / "docs" / "agents").glob("*.md") if page.stem != "publishing"),
    "docs/collectors.md",
    "docs/compiled-environments.md",
    "docs/deploying.md",
    "docs/diagnostics.md",
    "docs/export.md",
    "docs/faq.md",
    "docs/first-steps.md",
    "docs/from-demonstrations.md",
    "docs/gradients/closed-forms.md",
    "docs/gradients/from-k-gradients.md",
    "docs/logs.md",
    "docs/memory.md",
    "docs/replay.md",
    "docs/resume.md",
    "docs/self-play.md",
    "docs/tuning.md",
    "docs/your-environment.md",
)


@mostly_slow("page", WITH_BLOCKS, quick=[page for page in WITH_BLOCKS if page not in TAKING_SECONDS])
def test_python_blocks_run(page, tmp_path, monkeypatch, capsys):
    """Returns that a page prints with a range beside them, `160 to 500 with seeds 100 to 107`, lie in it."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "documentation"}
    for block in blocks(page):
        capsys.readouterr()
        exec(compile(block, f"{page.name}", "exec"), namespace)
        promised = re.findall(r"^print\(.*#.*\b(\d+) to (\d+) with seeds", block, re.M)
        printed = [float(line) for line in re.findall(r"^\d+\.\d+$", capsys.readouterr().out, re.M)] if promised else []
        assert len(printed) == len(promised)
        assert all(float(low) <= value <= float(high) for value, (low, high) in zip(printed, promised, strict=True))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in t]
    assert [t for t in targets if not (page.parent / t).exists()] == []


AS_PRINTED = {"docs/progress.md", "docs/command-line.md"}  # what commands print in a wider terminal


def code_lines(text):
    """The lines of a page's fenced and indented code, equations left out."""
    fence = None
    for line in text.splitlines():
        mark = re.match(r"^ *```(\w*)", line)
        if mark:
            fence = (mark[1] or "text") if fence is None else None
        elif fence not in (None, "math") or (fence is None and re.match(r" {4,}[^ *|-]", line)):
            yield fence or "text", line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_code_fits_a_window_of_80_columns(page):
    """So that it need not be scrolled on the site, nor in half of a window."""
    lines = list(code_lines(page.read_text()))
    if str(page.relative_to(ROOT)) in AS_PRINTED:
        lines = [(language, line) for language, line in lines if language != "text"]
    assert [line for _, line in lines if len(line) > 80] == [], "python docs/site/narrow.py shortens what can be"


def test_the_glossary_defines_exactly_the_metrics_that_are_logged():
    """By every shipped agent as it comes, and by each option that has a metric of its own."""
    import gymnasium

    import rlgrad
    from rlgrad.agents import AWAC, DDPG, DQN, IQL, NPG, PPO, PQN, SAC, TD3, StreamQ, StreamSARSA
    from rlgrad.config import agent_class
    from rlgrad.core import registry
    from rlgrad.logs import videos
    from rlgrad.metrics import EVALUATION_METRICS, LAG_METRICS, METRICS
    from rlgrad.policies.actions import ActorCritic
    from rlgrad.replay import Replay
    from rlgrad.updates import Ascent, NaturalGradient, PerHead

    spaces = gymnasium.spaces.Box(-1, 1, (3,)), gymnasium.spaces.Discrete(2)
    of_probabilities = rlgrad.make_policy(*spaces, hidden_sizes=(4,))
    shipped = [name for name, point in registry.agents().items() if point.value.startswith("rlgrad.agents.")]
    agents = [agent_class(name)() for name in shipped]
    agents += [PPO(update=Ascent(num_epochs=2, target_kl=0.1))]
    agents += [DQN(replay=Replay(capacity=64, warmup=8, prioritized=True))]
    agents += [NPG(update=PerHead(policy=NaturalGradient(fisher=kind))) for kind in ("exact", "empirical")]
    logged = {*METRICS, *EVALUATION_METRICS, *LAG_METRICS, videos.TAG}
    for agent in agents:
        policy = of_probabilities
        if isinstance(agent, DDPG | SAC | TD3):
            heads = ActorCritic(
                agent.num_critics,
                "reparameterized" if isinstance(agent, SAC) else "deterministic",
                agent.quantiles or 0,
            )
            box = gymnasium.spaces.Box(-1, 1, (2,))
            options = {"actor_critic": heads, "scalars": agent.scalars, "value": False, "hidden_sizes": (4,)}
            policy = rlgrad.make_policy(spaces[0], box, **options)
        elif isinstance(agent, AWAC | IQL):
            box = gymnasium.spaces.Box(-1, 1, (2,))
            heads = ActorCritic(agent.num_critics)
            policy = rlgrad.make_policy(spaces[0], box, actor_critic=heads, hidden_sizes=(4,))
        elif agent.critics_of_actions:
            options = {"actor_critic": ActorCritic(agent.num_critics, "categorical"), "scalars": agent.scalars}
            policy = rlgrad.make_policy(*spaces, value=False, hidden_sizes=(4,), **options)
        elif isinstance(agent, DQN | PQN | StreamQ | StreamSARSA):
            policy = rlgrad.make_policy(*spaces, action_values=agent.action_values, hidden_sizes=(4,))
        logged |= {f"train/{name}" for name in rlgrad.Learner(agent, policy, num_envs=agent.num_envs).metrics}
    defined = re.findall(r"^\| `((?:time|train|eval)/\w+)`", (ROOT / "docs/metrics.md").read_text(), re.M)
    assert sorted(defined) == sorted(logged)


def test_the_glossary_defines_exactly_the_diagnostics_that_are_logged():
    from rlgrad.diagnostics.diagnosis import DIAGNOSTICS, layer_metrics

    defined = re.findall(r"^\| `(gradient/[\w/<>]+)`", (ROOT / "docs/metrics.md").read_text(), re.M)
    assert tuple(defined) == DIAGNOSTICS + layer_metrics({name: ["<layer>"] for name in ("log_prob", "value", "q")})


def test_a_custom_agent_and_its_training_script_take_at_most_25_lines():
    (example,) = [block for block in blocks(ROOT / "README.md") if "class MyAgent" in block]
    lines = [line for line in example.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) <= 25
    assert [line.split("(")[0] for line in lines if re.match(r"\s*(class|def)\b", line)] == [
        "class MyAgent",
        "    def credit",
    ]


def test_the_agent_of_the_replay_page_is_the_file_that_it_names_and_has_at_most_25_lines():
    file, (block, *_) = (ROOT / "docs" / "munchausen.py").read_text(), blocks(ROOT / "docs" / "replay.md")
    documented = re.compile(r'^ *"""(?:(?!""").)*"""\n', re.M | re.S)
    shown, written = ([line for line in documented.sub("", text).splitlines() if line] for text in (block, file))
    assert shown == written
    assert len(shown) <= 25
