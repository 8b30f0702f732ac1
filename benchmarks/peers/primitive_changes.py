"""The table of `benchmarks/primitive.py --before`: rlgrad of this tree beside that of another."""

import statistics
from pathlib import Path

from primitive_tables import NET_ORDER, WORKS, Row, interval, ratios

SYSTEMS = {
    "rlgrad": "in a compiled program",
    "rlgrad tf.function": "`tf.function`",
    "rlgrad eager": "plain call",
    "concrete": "in a plain graph",
}


def write_changes(rows: list[Row], path: Path | None) -> str:
    """Return the table as text, also written to `path`: time now by time before, by row and by way of calling."""
    rows = sorted(rows, key=lambda row: (WORKS.index(row["work"]), NET_ORDER.index(row["net"]), row["batch"]))
    lines = [
        "# The gradient primitive, before and now",
        "",
        "`python benchmarks/primitive.py --before TREE`",
        "",
        "Time of this tree divided by that of the other, median over interleaved rounds (quartiles in brackets); below 1 is "
        "faster now. The results of both were equal before anything was timed.",
        "",
        f"| function | network | N | memory | {' | '.join(SYSTEMS.values())} |",
        "|" + "---|" * (4 + len(SYSTEMS)),
    ]
    for row in rows:
        cells = " | ".join(interval(ratios(row, system, f"before {system}")) for system in SYSTEMS)
        lines.append(f"| {row['work']} | {row['net']} | {row['batch']} | {row['memory']} | {cells} |")
    for system, name in SYSTEMS.items():
        middles = [statistics.median(ratios(row, system, f"before {system}")) for row in rows]
        lines += ["", f"{name}: median of the rows {statistics.median(middles):.3f}, largest {max(middles):.3f}."]
    text = "\n".join([*lines, ""])
    if path is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return text
