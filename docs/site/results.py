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


def pages() -> dict[str, Path]:
    """Return the pages that have a place for results, by agent."""
    return {page.stem: page for page in sorted(PAGES.glob("*.md")) if BEGIN in page.read_text()}


def written(page: str, agent: str) -> str:
    """Return a page with its table as the learning results have it now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(agent)}\n{END}{after}"


def table(agent: str) -> str:
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


def _beside(peers: list[tuple[str, str]], seeds: str) -> str:
    if not peers:
        return "–"
    greedy, count = peers[0]
    same = count == seeds
    return greedy.strip() + ("" if same else f", {count} seed{'s' if count != '1' else ''}")


def curves(agent: str) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Return by config the curves of all seeds: environment steps, and mean returns of the last 100 training episodes."""
    found = defaultdict(list)
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
    figure.supxlabel("environment steps", fontsize=8)
    figure.supylabel("training return", fontsize=8)
    figure.savefig(file, dpi=130, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    for name, path in pages().items():
        path.write_text(written(path.read_text(), name))
        draw(name, PAGES / "curves" / f"{name}.png")
