"""The part of an agent's page about its results, from benchmarks/results/: a table, and a picture of its learning curves.

`python docs/site/results.py` writes both anew for every page that has a place for them; a test compares the tables.
"""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from rlgrad.analysis.statistics import interquartile_mean

ROOT = Path(__file__).resolve().parents[2]
PAGES, RESULTS = ROOT / "docs" / "agents", ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- results -->\n", "<!-- end of results -->"
ROW = re.compile(
    r"^\| \*\*(?P<agent>[\w-]+)\*\* `(?P<config>[\w-]+)` \| (?P<training>[^|]+) \| (?P<greedy>[^|]+) \| "
    r"(?P<sampled>[^|]+) \| (?P<seeds>\d+) \|",
    re.M,
)
HEADS = ("config", "environment", "steps", "greedy return", "seeds")
PEERS = {"pqn": "CleanRL"}  # Stable-Baselines3 for all others
FROM_DATA = ("bc", "awac", "iql")  # whose results are those of benchmarks/from_data.py


def pages() -> dict[str, Path]:
    """Return the pages that have a place for results, by agent."""
    return {page.stem: page for page in sorted(PAGES.glob("*.md")) if BEGIN in page.read_text()}


def written(page: str, agent: str) -> str:
    """Return a page with its table as the learning results have it now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(agent)}\n{END}{after}"


def table(agent: str) -> str:
    """Return the rows of results of an agent, as a page shows them."""
    return _from_data(agent) if agent in FROM_DATA else _from_environments(agent)


def _from_environments(agent: str) -> str:
    """Return the rows of all configs of an agent, each beside the library that has the agent under the same name.

    The peer's number of seeds is said where it is another than ours.
    """
    sections = re.findall(
        r"^## (\S+), ([\d,]+) steps\n(.*?)(?=^## |\Z)", (RESULTS / "learning.md").read_text(), re.S | re.M
    )
    peer = PEERS.get(agent, "Stable-Baselines3")
    heads = (*HEADS, f"{peer}, greedy")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for env, steps, text in sections:
        peers = re.findall(rf"^\| {peer} {agent}[ ,][^|]*\| [^|]+ \| ([^|]+) \| [^|]+ \| (\d+) \|", text, re.M | re.I)
        for row in ROW.finditer(text):
            if row["agent"].lower() == agent:
                cells = f"`{row['config']}`", env, steps, row["greedy"], row["seeds"]
                lines.append("| " + " | ".join([*cells, _beside(peers, row["seeds"])]) + " |")
    return "\n".join(lines) + "\n"


def _from_data(agent: str) -> str:
    """Return the mean greedy returns on each set of recorded episodes, beside who acted there and beside BC."""
    names = list(dict.fromkeys(("bc", agent)))
    heads = ("environment", "data", "who acted", *(name.upper() for name in names))
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for (env, data), rows in _recorded().items():
        if agent in rows:
            means = (np.mean([row["greedy"] for row in rows[name]]) for name in names)
            reached = (rows[agent][0]["behavior"], *means)
            lines.append("| " + " | ".join([env, data, *(f"{value:.1f}" for value in reached)]) + " |")
    return "\n".join(lines) + "\n"


def _recorded() -> dict[tuple[str, str], dict[str, list[dict[str, Any]]]]:
    """Return the lines of benchmarks/from_data.py: by environment and recorded episodes, then by agent."""
    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in (RESULTS / "from-data.jsonl").open():
        row = json.loads(line)
        found[row["env"], row["data"]][row["agent"]].append(row)
    return found


def _beside(peers: list[tuple[str, str]], seeds: str) -> str:
    if not peers:
        return "–"
    greedy, count = peers[0]
    same = count == seeds
    return greedy.strip() + ("" if same else f", {count} seed{'s' if count != '1' else ''}")


def curves(agent: str) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Return the curves of all seeds by their title: steps, and mean returns.

    They are environment steps, and returns of the last 100 training episodes; of recorded episodes, gradient steps, and greedy
    returns.
    """
    found = defaultdict(list)
    if agent in FROM_DATA:
        for (env, data), rows in _recorded().items():
            for row in rows.get(agent, []):
                curve = row["curve"]
                found[f"{data} · {env}"].append((np.array(curve["steps"]), np.array(curve["greedy"])))
        return dict(found)
    for line in (RESULTS / "learning.jsonl").open():
        run: dict[str, Any] = json.loads(line)
        if run["agent"] == agent:
            curve = run["curve"]
            found[f"{run['config']} · {run['env']}"].append((np.array(curve["timesteps"]), np.array(curve["return"])))
    return dict(found)


def draw(agent: str, file: Path) -> None:
    """Draw each config's interquartile mean over its seeds, within the range of all seeds."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    shown = curves(agent)
    rows, columns = -(-len(shown) // 3), min(3, len(shown))
    figure, grid = plt.subplots(rows, columns, figsize=(3.6 * columns, 2.5 * rows), squeeze=False, layout="constrained")
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    for axes, (title, seeds) in zip(grid.flat, shown.items(), strict=False):
        steps = np.linspace(max(s[0] for s, _ in seeds), min(s[-1] for s, _ in seeds), 100)
        returns = np.stack([np.interp(steps, s, r) for s, r in seeds])
        axes.fill_between(steps, returns.min(0), returns.max(0), color="#c0602b", alpha=0.2, linewidth=0)
        axes.plot(steps, [interquartile_mean(column) for column in returns.T], color="#8a3b12", linewidth=1.6)
        axes.set_title(f"{title}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}", fontsize=8)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(alpha=0.25, linewidth=0.5)
    figure.supxlabel("gradient steps" if agent in FROM_DATA else "environment steps", fontsize=8)
    figure.supylabel("greedy return" if agent in FROM_DATA else "training return", fontsize=8)
    figure.savefig(file, dpi=130, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    for name, path in pages().items():
        path.write_text(written(path.read_text(), name))
        draw(name, PAGES / "curves" / f"{name}.png")
