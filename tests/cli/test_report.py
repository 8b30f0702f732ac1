"""`rlgrad report`: one file of HTML that asks nothing of a network, in which a browser finds no error."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from PIL import Image

from rlgrad.agents import A2C
from rlgrad.analysis import svg
from rlgrad.analysis.episode_report import EpisodeSteps, shown_steps
from rlgrad.analysis.groups import differing, grouped
from rlgrad.analysis.reporting import Film, report
from rlgrad.cli import main
from rlgrad.diagnostics.credited_steps import StepCredits

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


class Page(HTMLParser):
    """The headings, texts and addresses of a page, whose tags all have to be closed."""

    EMPTY = ("meta", "img", "path", "circle", "rect", "polygon")

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.tags, self.words = [], [], set(), []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def make(tmp_path):
    def make(name, seed=0, greedy=None, gamma=0.9, env="CartPole-v1", agent="ppo", **extra):
        folder = tmp_path / name
        folder.mkdir()
        content = {"agent": {"name": agent, "gamma": gamma}, "env": env, "seed": seed, "total_timesteps": 300}
        (folder / "config.yaml").write_text(yaml.safe_dump(content))
        columns = {"train/return": [1.0, 2.0 + seed, 4.0], "train/entropy": [0.6, "", 0.2], **extra}
        header = ["time/timesteps", "time/seconds", *columns]
        rows = [[100 * (i + 1), i + 0.5, *(column[i] for column in columns.values())] for i in range(3)]
        (folder / "metrics.csv").write_text("\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n")
        if greedy is not None:
            kind = {"mean_return": greedy, "std_return": 1.0, "episodes": 2, "returns": [greedy - 1, greedy + 1]}
            kind["lengths"] = [3, 4]
            results = {"greedy": kind, "sampled": kind, "reward_threshold": 475.0, "solved": False}
            (folder / "evaluation.json").write_text(json.dumps(results))
        said = {"command": f"rlgrad train {agent} {env} --seed {seed}", "started": "2026-01-01T00:00:00+00:00"}
        said |= {"machine": {"platform": "Linux", "cores": 2}, "versions": {"keras": "3.15"}, "git": {"commit": "abc"}}
        (folder / "run.json").write_text(json.dumps(said))
        return folder

    return make


def test_one_run_is_told_whole(make):
    groups, _ = grouped([make("a", greedy=100.0)])
    page = Page(report(groups, {"a film": Film(b"GIF89a", "gif", "of an episode")}))
    for said in (
        "ppo on CartPole-v1",
        "100.0 [87.3, 112.7]",
        "solved: 475",
        "share of episodes",
        "of an episode",
        "train/entropy",
        "agent.gamma 0.9",
        "Linux, 2 cores",
        "keras 3.15",
        "rlgrad train ppo CartPole-v1 --seed 0",
        "rlgrad train --from",
    ):
        assert said in page.text, said
    assert "Probability of improvement" not in page.text
    assert page.addresses == ["data:image/gif;base64,R0lGODlh"]
    assert page.tags.isdisjoint({"script", "link", "iframe", "object", "a"})


def test_several_runs_are_compared_by_environment_and_never_across(make):
    runs = [make(f"a{s}", s, greedy=100.0 + s) for s in range(3)] + [
        make(f"b{s}", s, 50.0 + s, gamma=0.5) for s in range(3)
    ]
    runs += [make("c", greedy=-80.0, env="Acrobot-v1")]
    groups, _ = grouped(runs)
    page = Page(report(groups, {}))
    assert "Learning on CartPole-v1" in page.text
    assert "Learning on Acrobot-v1" in page.text
    assert "ppo, gamma=0.9 ppo, gamma=0.5 1.00 [1.00, 1.00]" in page.text  # every run of the first is better
    assert "Comparison on CartPole-v1" in page.text
    assert "Comparison on Acrobot-v1" not in page.text
    assert "fewer than five seeds" in page.text
    assert differing(groups) == {"agent.gamma": [0.9, 0.5, 0.9], "env": ["CartPole-v1", "CartPole-v1", "Acrobot-v1"]}


def test_what_a_folder_says_is_text_and_never_markup(make):
    wrong = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    folder = make("a", greedy=1.0, agent=wrong, env=f"'\"{wrong}", **{f"train/{wrong}": [1, 2, 3]})
    (folder / "run.json").write_text(
        json.dumps({"command": wrong, "machine": {"platform": wrong}, "versions": {wrong: 1}})
    )
    page = Page(report(grouped([folder])[0], {wrong: Film(b"", "gif", wrong)}))
    assert page.tags.isdisjoint({"script", "img"})
    assert page.addresses == []
    assert page.text.count("alert(1)") > 8


def test_a_folder_that_lacks_most_is_told_as_far_as_it_goes(make):
    folder = make("a")
    (folder / "run.json").write_text("[]")
    page = Page(report(grouped([folder])[0], {}))
    assert "Not evaluated." in page.text
    assert "(their folders do not say)" in page.text
    (folder / "metrics.csv").write_text("time/timesteps,time/seconds,train/return\n")
    assert "ppo on CartPole-v1" in Page(report(grouped([folder])[0], {})).text


@pytest.mark.parametrize(
    ("x", "y"),
    [([], []), ([1.0], [2.0]), ([1, 2, 3], [np.nan, 1.0, np.inf]), ([0, 1], [5.0, 5.0]), ([0, 1], [0.0, 1e300])],
)
@pytest.mark.parametrize("log", [False, True])
def test_a_figure_is_sound_whatever_the_numbers_are(x, y, log):
    figure = svg.lines([svg.Series("<a>", x, y, y, y)], x_label="x", y_label="y", level=(0.0, "zero"), log=log)
    ET.fromstring(figure)
    assert not re.search(r"\b(nan|inf)\b", figure)
    ET.fromstring(svg.bars(["a", "b"], [1.0, np.nan], label="l"))
    ET.fromstring(svg.bars([], [], label="l", low=[], high=[]))


@pytest.fixture
def diagnosed(finished):
    return finished(A2C(num_envs=2), "CartPole-v1", diagnose=True, evaluation_episodes=2)


def test_the_command_writes_a_page_with_an_episode_and_the_diagnostics(diagnosed, capsys, tmp_path):
    assert main(["report", str(diagnosed), "--output", "r.html"]) == 0
    assert capsys.readouterr().out == "Wrote r.html\n"
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    film, *pictures = [address[:22] for address in page.addresses]
    assert film == "data:image/gif;base64,"
    assert 4 <= len(pictures) <= 8
    assert {*pictures} == {"data:image/png;base64,"}
    assert re.search(r"a · step 0: -?[\d.]+", page.text)
    shown = (
        "credit by step",
        "What a2c would credit if it learned from this episode",
        "the credit on ∇ log π(a|s)",
        "Value against return",
        "Signal by layer",
        "What a baseline is worth",
        "policy: hidden_1",
        "Gradient noise scale",
        "layer of the policy",
    )
    for said in shown:
        assert said in page.text
    for wrong, says in ((["--output", "r.pdf"], "ends in .html"), (["--output", "no/r.html"], "no folder 'no'")):
        assert main(["report", str(diagnosed), *wrong]) == 2
        assert says in capsys.readouterr().err


def test_an_environment_without_pictures_and_a_wish_for_none(make, capsys, tmp_path):
    assert main(["report", str(make("a", greedy=1.0, env="Nowhere-v0"))]) == 0
    said = capsys.readouterr().out
    assert "No film of" in said
    assert Page((tmp_path / "a" / "report.html").read_text()).addresses == []
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "episode.gif")
    assert main(["report", str(tmp_path / "a"), "--no-film", "--json"]) == 0
    assert "episode.gif of" in json.dumps(json.loads(capsys.readouterr().out)["films"])


def episode(credit=(0.0, 2.0, -1.0, 0.5), **others):
    steps = StepCredits({"log_prob": np.array(credit), **others}, np.arange(4.0), np.arange(4.0) + 1.0)
    return EpisodeSteps(steps, [np.full((40, 60, 3), 60 * t, np.uint8) for t in range(5)], "how it was played")


def test_the_credits_of_an_episode_are_beside_pictures_of_its_steps(make):
    page = Page(report(grouped([make("a")])[0], {}, (), {"ppo": episode(value=np.ones(4) * np.arange(4))}))
    captions = re.findall(r"([a-z]) · step (\d+): (\S+)", page.text)
    assert captions == [("a", "0", "0"), ("b", "1", "2"), ("c", "2", "-1"), ("d", "3", "0.5")]
    assert [address[:22] for address in page.addresses] == 4 * ["data:image/png;base64,"]
    for said in ("ppo: credit by step", "how it was played", "the credit on ∇ v(s)", "discounted return from here"):
        assert said in page.text
    same = EpisodeSteps(StepCredits({}, None, None), [], "c")
    assert "Every step has the same credit." in Page(report(grouped([make("b")])[0], {}, (), {"bc": same})).text


def test_the_steps_that_are_shown_have_the_largest_and_the_smallest_credit():
    credit = np.sin(np.arange(300) / 7.0)
    credit[123], credit[217] = 5.0, -5.0
    shown = shown_steps(credit, 301)
    assert {0, 123, 217, 299} <= {*shown}
    assert 6 <= len(shown) <= 8
    assert min(np.diff(shown)) > 299 / 20  # in order, and no two of nearly the same picture
    assert max(shown_steps(credit, 50)) == 49  # no picture later than the film goes
    assert shown_steps(credit[:1], 2) == [0]


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
@pytest.mark.parametrize("width", [420, 1400])
def test_a_browser_shows_it_without_an_error_or_a_request(make, width, tmp_path):
    """Nothing is wider than the window, but for what scrolls by itself; and the browser has nothing to say about the page."""
    runs = [make(f"a{s}", s, greedy=100.0 + s) for s in range(2)] + [
        make(f"b{s}", s, 50.0 + s, gamma=0.5) for s in range(2)
    ]
    file = tmp_path / "r.html"
    file.write_text(report(grouped(runs)[0], {"film": Film(b"", "gif", "none")}, (), {"ppo": episode()}))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options += [
        "--enable-logging=stderr",
        "--log-level=0",
        f"--window-size={width},2000",
        f"--screenshot={tmp_path / 'r.png'}",
    ]
    done = subprocess.run([CHROMIUM, *options, file.as_uri()], capture_output=True, text=True, timeout=120)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line or "Content Security" in line]
    assert console == []
    picture = np.asarray(Image.open(tmp_path / "r.png").convert("L"), np.int16)
    background = picture[-1, 0]
    assert (np.abs(picture - background) > 60).mean() > 0.01  # something is drawn
    assert (np.abs(picture[:, -3:] - background) < 60).all()  # and nothing runs out at the right
