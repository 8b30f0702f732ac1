"""What the documentation says of itself and of the code: tables, navigation, reference, figures."""

import inspect
import re
from pathlib import Path

import algorithms
import api
import docstrings
import films
import navigation
import pytest
import results
import tables
import yaml
from PIL import Image
from sources import description, kind

from rlgrad.cli.options import parse
from rlgrad.config import agent_class
from rlgrad.hyperparameters import fields

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "docs" / "configs.md"
SETTINGS = {page.name: page for page in tables.PAGES}
PUBLIC = [
    (f"{module.__name__}.{name}", getattr(module, name))
    for module in api.modules()
    for name in api.public_names(module)
]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_tables_of_settings_are_what_the_code_says(name):
    page = SETTINGS[name].read_text()
    assert tables.written(page) == page, "python docs/site/tables.py writes them anew"


def test_every_table_of_settings_stands_on_one_page():
    placed = [name for page in SETTINGS.values() for name in tables.named(page.read_text())]
    assert sorted(placed) == sorted(tables.tables())


@pytest.mark.parametrize("block", re.findall(r"^```yaml\n(.*?)^```", CONFIGS.read_text(), re.S | re.M))
def test_the_configs_shown_are_taken(block):
    parse(yaml.safe_load(block), [], prog="rlgrad train")


def test_every_page_stands_in_the_navigation_once():
    files = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks" / "results").glob("*.md")]
    files += [*(ROOT / "examples").glob("*.ipynb"), ROOT / "examples" / "README.md"]
    expected = {str(file.relative_to(ROOT).with_suffix("")) for file in files} - {navigation.HOME}
    found = navigation.pages(ROOT)
    listed = [
        page for pages in navigation.sections(found).values() for page in pages if not page.startswith("docs/api/")
    ]
    assert sorted(listed) == sorted(expected)


def test_a_page_that_no_section_names_joins_those_of_its_folder():
    sections = navigation.sections(
        ["docs/metrics", "docs/new", "docs/agents/new", "docs/agents/ppo", "docs/agents/publishing"]
    )
    assert sections["Runs"] == ["docs/metrics", "docs/new"]
    assert sections["Agents"] == ["docs/agents/ppo", "docs/agents/new", "docs/agents/publishing"]


def test_every_public_name_is_described_on_one_page(tmp_path):
    api.write(tmp_path)
    text = "\n".join(file.read_text() for file in tmp_path.iterdir())
    described = re.findall(r"^\.\. auto(?:class|exception|function):: (\S+)$", text, re.M)
    described += [
        f"{module}.{name}" for name, module in re.findall(r"^\.\. py:data:: (\S+)\n   :module: (\S+)$", text, re.M)
    ]
    assert sorted(described) == sorted(set(api.homes().values()))
    assert {f"rlgrad.{name}" for name in ("agents", "envs", "gradients", "updates")} <= {
        f.stem for f in tmp_path.iterdir()
    }


@pytest.mark.parametrize(("name", "value"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_a_docstring_names_the_arguments_there_are(name, value):
    assert description(name.rpartition(".")[2], value), "it has no docstring, or is data without a string below it"
    methods = vars(value).items() if kind(value) == "class" else ()
    parts = [value] if kind(value) != "data" else []
    parts += [m for n, f in methods if not n.startswith("_") and inspect.isfunction(m := getattr(f, "__func__", f))]
    for part in parts:
        section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", inspect.getdoc(part) or "", re.M)
        if section:
            named = re.findall(r"^    (\w+):", section[1], re.M)
            assert named == [p for p in inspect.signature(part).parameters if p not in ("self", "cls")], part


def test_in_a_docstring_nothing_but_backticks_is_markup():
    assert docstrings.escaped("(N, *shape), ‖g‖ = |g_j|, x_ and `a*b`") == r"(N, \*shape), ‖g‖ = \|g_j\|, x\_ and `a*b`"
    lines = [
        "Both.",
        "",
        "    tr Σ = |a|",
        "",
        "Args:",
        "    x: (N, *shape).",
        "    n: N.",
        "",
        "Returns:",
        "    f: a number.",
    ]
    docstrings.as_rst(None, "function", "f", None, None, lines)
    assert lines[:6] == ["Both.", "", "::", "", "    tr Σ = |a|", ""]
    assert lines[6:] == ["Args:", r"    x: (N, \*shape).", r"    n: N\.", "", ":returns:", "    f: a number."]


def test_every_page_is_in_the_table_of_pages():
    home = ROOT / "docs" / "README.md"
    table = re.search(r"^## Pages\n(.*?)(?=^## |\Z)", home.read_text(), re.S | re.M)[1]
    linked = [link for row in re.findall(r"^\|.*$", table, re.M) for link in re.findall(r"\]\(([^)#]+)\)", row)]
    pages = [str(page.relative_to(home.parent)) for page in home.parent.rglob("*.md") if page != home]
    assert sorted(linked) == sorted(["../examples/README.md", *pages])


def test_the_returns_of_the_agents_side_by_side_are_those_of_the_learning_results():
    page = (ROOT / "docs" / "which-agent.md").read_text()
    results = (ROOT / "benchmarks" / "results" / "learning.md").read_text()
    rows = re.findall(r"^\| (\w+-v\d) \| ([\d,]+) \| (.*) \|$", page, re.M)
    assert len(rows) >= 7
    for env, steps, cells in rows:
        section = re.search(rf"^## {env}, {steps} steps\n(.*?)(?=^## |\Z)", results, re.S | re.M)[1]
        for agent, cell in zip(("REINFORCE", "A2C", "PPO", "NPG", "TRPO"), cells.split(" | "), strict=True):
            greedy = re.findall(rf"^\| \*\*{agent}\*\* `[\w-]+` \| [^|]+ \| (\S+) ", section, re.M)
            assert cell in greedy if greedy else cell == "–", (env, agent)


@pytest.mark.parametrize("page", ["README.md", "docs/README.md"])
def test_the_figures_of_the_first_pages_are_those_of_the_results(page):
    rows = re.findall(
        r"^\| (.*\d.*) \| (?:\[\w+\]\(\S+?(\w+)\.md\)|`python benchmarks/(\w+)\.py.*`) \|$",
        (ROOT / page).read_text(),
        re.M,
    )
    assert len(rows) >= 5
    for text, linked, run in rows:
        known = set(re.findall(r"[\d.,]*\d", (ROOT / "benchmarks" / "results" / f"{linked or run}.md").read_text()))
        assert [number for number in re.findall(r"[\d.,]*\d", text) if number not in known] == [], text


RESULTS = results.pages()


def test_every_agent_among_the_learning_results_shows_them_on_its_page():
    named = re.findall(r"^\| \*\*([\w-]+)\*\* `", (ROOT / "benchmarks" / "results" / "learning.md").read_text(), re.M)
    assert {*RESULTS} == {*(name.lower() for name in named), *results.FROM_DATA}


@pytest.mark.parametrize("agent", RESULTS)
def test_the_results_on_an_agents_page_are_the_learning_results(agent):
    page = RESULTS[agent].read_text()
    assert results.written(page, agent) == page, "python docs/site/results.py writes them anew"
    assert len(results.table(agent).splitlines()) >= 3
    assert f"](curves/{agent}.png)" in page


@pytest.mark.parametrize("agent", RESULTS)
def test_the_learning_curves_are_those_of_the_configs_in_the_table(agent):
    first = r"^\| \S+ \| ([\w-]+) \|" if agent in results.FROM_DATA else r"^\| `([\w-]+)` "
    in_table = [name for name in re.findall(first, results.table(agent), re.M) if name != "data"]
    assert sorted(title.split(" · ")[0] for title in results.curves(agent)) == sorted(in_table)


@pytest.mark.parametrize("agent", ["npg", "iql"])
def test_learning_curves_are_drawn(tmp_path, agent):
    results.draw(agent, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


AGENTS = {name: ROOT / "docs" / "agents" / f"{name}.md" for name in algorithms.CREDITS}
PARTS = [
    "Equation",
    "Train it",
    "Options",
    "What the metrics say",
    "Results",
    "Implementation choices",
    "When it fails",
]


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agents_page_has_all_its_parts(agent):
    page = AGENTS[agent].read_text()
    assert re.findall(r"^## (.*)$", page, re.M) == [*PARTS, "Source"]
    assert page.split("\n")[2].startswith("**Idea.** ")
    trained = re.search(r"^## Train it\n(.*?)^## ", page, re.S | re.M)[1]
    assert re.findall(r"^```(\w+)", trained, re.M) == ["sh", "python"]
    assert re.search(r"^\| credit on \| is \|$", page, re.M)
    assert re.search(r"\]\(\.\./\.\./agents/\w+\.py\)", page)


@pytest.mark.parametrize("agent", AGENTS)
def test_the_metrics_on_an_agents_page_are_in_the_glossary(agent):
    section = re.search(r"^## What the metrics say\n(.*?)^## ", AGENTS[agent].read_text(), re.S | re.M)[1]
    cells = [row.split(" | ")[0] for row in section.splitlines() if row.startswith("| `")]
    named = [name for cell in cells for name in re.findall(r"`(\w+/\w+)`", cell)]
    defined = re.findall(r"^\| `(\w+/\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.M)
    assert len(named) >= 3
    assert {*named} <= {*defined}


@pytest.mark.parametrize("agent", films.CONFIGS)
def test_the_film_on_an_agents_page_is_one_of_its_configs(agent):
    settings = yaml.safe_load((ROOT / "configs" / f"{films.CONFIGS[agent]}.yaml").read_text())
    assert settings["agent"]["name"] == agent
    assert _film(agent) == (settings["env"], films.CONFIGS[agent])


@pytest.mark.parametrize("agent", results.FROM_DATA)
def test_the_film_on_the_page_of_an_agent_that_learns_from_data_is_of_an_environment_of_its_results(agent):
    env, trained = _film(agent)
    assert (env, trained) in {(row.split(" | ")[0].strip("| "), agent) for row in results.table(agent).splitlines()[2:]}


def _film(agent):
    """What an agent's page says of its film: the environment, and what trained; the film is small."""
    (shown,) = re.findall(
        rf"^!\[(\S+) after training (\S+): .*\]\(films/{agent}\.gif\)$", AGENTS[agent].read_text(), re.M
    )
    file = films.PAGES / "films" / f"{agent}.gif"
    with Image.open(file) as film:
        assert film.n_frames > 20
        assert max(film.size) <= films.PIXELS
    assert file.stat().st_size <= films.LARGEST
    return shown


def test_every_agent_that_a_short_config_trains_has_a_film():
    """Of CartPole, Acrobot and Pendulum; agents without such a config are not filmed."""
    short = [yaml.safe_load(file.read_text()) for file in (ROOT / "configs").glob("*.yaml")]
    trained = {each["agent"]["name"] for each in short if each["env"] in ("CartPole-v1", "Acrobot-v1", "Pendulum-v1")}
    assert trained == {*films.CONFIGS}


@pytest.mark.parametrize("agent", ["bc", "awac", "iql"])
def test_the_figures_of_agents_that_learn_from_data_are_those_of_the_results(agent):
    rows = re.findall(r"^\| (\w+-v\d) \| ([\w-]+) \| (.*) \|$", AGENTS[agent].read_text(), re.M)
    results = (ROOT / "benchmarks" / "results" / "from-data.md").read_text()
    names = ["bc"] if agent == "bc" else ["bc", agent]
    assert len(rows) >= 3
    for env, data, figures in rows:
        acted, *reached = figures.split(" | ")
        for name, figure in zip(names, reached, strict=True):
            row = re.search(rf"^\| {env} \| {data} \| (\S+) \| {name} \| [^|]+ \| (\S+) \|", results, re.M)
            assert (acted, figure) == row.groups()


def _options(agent):
    """The rows of an agent's table of options: names, and what the page says is the default."""
    section = re.search(r"^## Options\n(.*?)^## ", AGENTS[agent].read_text(), re.S | re.M)[1]
    rows = re.findall(r"^\| ((?:`[\w.]+`(?:, )?)+) \| ([^|]+) \|", section, re.M)
    for names, defaults in rows:
        listed = re.findall(r"`([\w.]+)`", names)
        said = defaults.split(", ") if len(listed) > 1 else [defaults]
        yield from ((name, default.strip(" `")) for name, default in zip(listed, said, strict=True))


@pytest.mark.parametrize("agent", AGENTS)
def test_the_options_on_an_agents_page_have_the_defaults_that_it_says(agent):
    compared = 0
    for name, said in _options(agent):
        value = agent_class(agent)()
        for part in name.split("."):
            value = fields(value)[part]
        if re.fullmatch(r"[\d.,e-]+", said):
            assert value == float(said.replace(",", "")), name
        elif said in ("on", "off"):
            assert value is (said == "on"), name
        elif said.split(":")[0] == "none":
            assert value is None or value == "none", name
        elif re.fullmatch(r"\w+", said):
            assert value == said, name
        else:
            continue
        compared += 1
    assert compared >= 3
