"""The tables of benchmarks/primitive.py, with the target of each row and whether it was met."""

import os
import platform
import statistics
from pathlib import Path
from typing import Any

from primitive_common import BY_HAND

# Not competitors: what writing the result costs at least, and a call that computes nothing.
FLOORS = ("write", "write anew", "nothing")
PEERS = ("torch.func", "JAX", "Opacus", "BackPACK")
MATERIALIZING = ("torch.func", "JAX written out", "Opacus", "BackPACK")
MEMORY = {
    "default": "Memory as the libraries come",
    "kept": "Memory kept by every process (glibc's malloc told so; see `--memory`)",
}
NET_ORDER = ("4-64-64-2", "17-256-256-6", "MinAtar CNN", "Nature CNN")

WORKS = ("per-sample gradients", "norms", "Gram", "gradient", *BY_HAND)

Row = dict[str, Any]

CAUSES = """## Rows that miss their target, and why

- **4-64-64-2.** A compiled TensorFlow call takes the time of the column *nothing* of primitive.jsonl before it computes
  anything, and then reads six variables; a call of JAX takes less. At N = 32 this is more than half of every row. At N = 256
  the forward pass and the backward pass to each layer take most of what is left, so that norms at no cost would miss too.
- **CNNs, beside writing.** Two fifths of the time is a compiled fill of the result. The rest is arithmetic: forward and
  backward pass, and the products of patches and cotangents for each kernel, which on one core take longer than writing does.
"""


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return statistics.median(values), low, high


def number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def interval(values: list[float], scale: float = 1.0) -> str:
    middle, low, high = (number(scale * value) for value in quartiles(values))
    return f"{middle} ({low} to {high})"


def milliseconds(row: Row, system: str) -> str:
    return interval(row["seconds"][system], 1e3) if system in row["seconds"] else "–"


def ratios(row: Row, above: str, below: str) -> list[float]:
    """One ratio for each round."""
    return [a / b for a, b in zip(row["seconds"][above], row["seconds"][below], strict=True)]


def median(row: Row, system: str) -> float:
    return statistics.median(row["seconds"][system])


def fastest(row: Row, systems: tuple[str, ...]) -> str:
    return min((s for s in systems if s in row["seconds"]), key=lambda system: median(row, system))


def verdict(row: Row, above: str, below: str, at_least: float | None = None, at_most: float | None = None) -> str:
    """Met or missed; a miss with what the floors say about its cause."""
    ratio = statistics.median(ratios(row, above, below))
    if (at_least is not None and ratio >= at_least) or (at_most is not None and ratio <= at_most):
        return "met"
    ours = median(row, "rlgrad")
    shares = {
        "what a compiled fill of a new result of that size takes": "write anew",
        "what a compiled call that computes nothing takes": "nothing",
    }
    causes = [
        f"{median(row, floor) / ours:.0%} of rlgrad's time is {what}"
        for what, floor in shares.items()
        if floor in row["seconds"] and median(row, floor) > 0.25 * ours
    ]
    return "; ".join(["missed", *causes])


def beside_peers(rows: list[Row]) -> list[str]:
    columns = ("rlgrad", "rlgrad tf.function", "rlgrad eager", *PEERS)
    lines = [
        "### Per-sample gradients",
        "",
        f"Target: rlgrad, compiled, at least 1.5 times as fast as the fastest of {', '.join(PEERS)}.",
        "",
        f"| network | N | {' | '.join(columns)} | fastest peer | times as fast | target |",
        "|" + "---|" * (len(columns) + 5),
    ]
    for row in rows:
        shown = " | ".join(milliseconds(row, column) for column in columns)
        peer = fastest(row, PEERS)
        lines.append(
            f"| {row['net']} | {row['batch']} | {shown} | {peer} | {interval(ratios(row, peer, 'rlgrad'))} | "
            f"{verdict(row, peer, 'rlgrad', at_least=1.5)} |"
        )
    return [*lines, ""]


def beside_materializing(rows: list[Row], title: str, own: tuple[str, ...]) -> list[str]:
    columns = ("rlgrad", "rlgrad tf.function", "rlgrad eager", *MATERIALIZING, *own)
    lines = [
        f"### {title}",
        "",
        "Target: rlgrad, compiled, at least 5 times as fast as the fastest peer that writes the per-sample gradients out "
        f"first: {', '.join(MATERIALIZING)}. The last column is against the fastest of all columns; *JAX* compiles gradients "
        "and reduction together, which lets XLA leave some of the writing out"
        + (", *Opacus ghost* and *BackPACK L2* are those libraries' own functions for norms." if len(own) > 1 else "."),
        "",
        f"| network | N | {' | '.join(columns)} | fastest that writes out | times as fast | target | fastest of all | "
        "times as fast |",
        "|" + "---|" * (len(columns) + 7),
    ]
    for row in rows:
        shown = " | ".join(milliseconds(row, column) for column in columns)
        peer, best = fastest(row, MATERIALIZING), fastest(row, (*MATERIALIZING, *own))
        lines.append(
            f"| {row['net']} | {row['batch']} | {shown} | {peer} | {interval(ratios(row, peer, 'rlgrad'))} | "
            f"{verdict(row, peer, 'rlgrad', at_least=5.0)} | {best} | {interval(ratios(row, best, 'rlgrad'))} |"
        )
    return [*lines, ""]


def beside_writing(rows: list[Row]) -> list[str]:
    lines = [
        "### Writing the per-sample gradients",
        "",
        "Target: rlgrad, compiled, takes at most 3 times as long as writing N·P floats. *In place* fills memory that is there "
        "already; *anew* is a compiled TensorFlow program that returns as many floats and has to "
        "ask for its memory first. The target is judged by the shorter.",
        "",
        "| network | N | N·P floats, MB | rlgrad | in place | anew | rlgrad / in place | rlgrad / anew | target |",
        "|" + "---|" * 9,
    ]
    for row in rows:
        floor = min(("write", "write anew"), key=lambda system: median(row, system))
        lines.append(
            f"| {row['net']} | {row['batch']} | {number(4e-6 * row['batch'] * row['weights'])} | "
            f"{' | '.join(milliseconds(row, system) for system in ('rlgrad', 'write', 'write anew'))} | "
            f"{interval(ratios(row, 'rlgrad', 'write'))} | {interval(ratios(row, 'rlgrad', 'write anew'))} | "
            f"{verdict(row, 'rlgrad', floor, at_most=3.0)} |"
        )
    return [*lines, ""]


def beside_tape_jacobian(rows: list[Row]) -> list[str]:
    lines = [
        "### tape.jacobian",
        "",
        "Target: per-sample gradients at least 50 times as fast as the faster of `tape.jacobian` in a graph and under XLA.",
        "",
        "| network | N | rlgrad | tape.jacobian | tape.jacobian, XLA | times as fast | target |",
        "|" + "---|" * 7,
    ]
    for row in rows:
        peer = min(("tape.jacobian", "tape.jacobian XLA"), key=lambda system: median(row, system))
        shown = (milliseconds(row, system) for system in ("rlgrad", "tape.jacobian", "tape.jacobian XLA"))
        lines.append(
            f"| {row['net']} | {row['batch']} | {' | '.join(shown)} | {interval(ratios(row, peer, 'rlgrad'))} | "
            f"{verdict(row, peer, 'rlgrad', at_least=50.0)} |"
        )
    return [*lines, ""]


def beside_surrogate(rows: list[Row]) -> list[str]:
    lines = [
        "### gradient, beside a surrogate loss",
        "",
        "Target: at most 1.10 times a `GradientTape` over Σ c log π written by hand, both compiled with XLA. The last columns "
        "are the same in plain graphs.",
        "",
        "| network | N | rlgrad | tape | rlgrad / tape | target | rlgrad, graph | tape, graph | rlgrad / tape |",
        "|" + "---|" * 9,
    ]
    for row in rows:
        lines.append(
            f"| {row['net']} | {row['batch']} | {milliseconds(row, 'rlgrad')} | {milliseconds(row, 'tape XLA')} | "
            f"{interval(ratios(row, 'rlgrad', 'tape XLA'))} | {verdict(row, 'rlgrad', 'tape XLA', at_most=1.1)} | "
            f"{milliseconds(row, 'concrete')} | {milliseconds(row, 'tape')} | "
            f"{interval(ratios(row, 'concrete', 'tape'))} |"
        )
    return [*lines, ""]


def beside_by_hand(rows: list[Row]) -> list[str]:
    lines = [
        "### Other functions, beside plain TensorFlow",
        "",
        "Each beside the nearest that one writes without rlgrad (`peers/primitive_by_hand.py`): `vectorized_map` and a sum "
        "for the clipped gradient, a tape in a tape for the Hessian, `ForwardAccumulator` for the Gauss-Newton product and "
        "the input jvp, "
        "`batch_jacobian` for the input Jacobian, the layers one after the other for the activation gradient, `tape.jacobian` "
        "and a product for the Jacobian Gram. Both compiled with XLA, then both in plain graphs.",
        "",
        "| function | network | N | rlgrad | by hand | by hand / rlgrad | rlgrad, graph | by hand, graph | by hand / rlgrad |",
        "|" + "---|" * 9,
    ]
    for row in rows:
        lines.append(
            f"| {row['work']} | {row['net']} | {row['batch']} | {milliseconds(row, 'rlgrad')} | "
            f"{milliseconds(row, 'by hand XLA')} | {interval(ratios(row, 'by hand XLA', 'rlgrad'))} | "
            f"{milliseconds(row, 'concrete')} | {milliseconds(row, 'by hand')} | "
            f"{interval(ratios(row, 'by hand', 'concrete'))} |"
        )
    return [*lines, ""]


def overhead(rows: list[Row]) -> list[str]:
    lines = [
        "### Calling overhead",
        "",
        "Target: a repeated eager call compiles nothing (checked before timing, also for another N) and takes at most 1.20 "
        "times as long as the bare concrete function of the same call.",
        "",
        "| function | network | N | eager call | concrete function | eager / concrete | difference, ms | target |",
        "|" + "---|" * 8,
    ]
    for row in rows:
        pairs = zip(row["seconds"]["rlgrad eager"], row["seconds"]["concrete"], strict=True)
        lines.append(
            f"| {row['work']} | {row['net']} | {row['batch']} | {milliseconds(row, 'rlgrad eager')} | "
            f"{milliseconds(row, 'concrete')} | {interval(ratios(row, 'rlgrad eager', 'concrete'))} | "
            f"{number(1e3 * statistics.median(e - c for e, c in pairs))} | "
            f"{'met' if statistics.median(ratios(row, 'rlgrad eager', 'concrete')) <= 1.2 else 'missed'} |"
        )
    return [*lines, ""]


def tables(rows: list[Row]) -> list[str]:
    """All tables of rows that were measured with one setting of memory."""
    of = {work: [row for row in rows if row["work"] == work] for work in WORKS}
    lines: list[str] = []
    if of["per-sample gradients"]:
        lines += beside_peers(of["per-sample gradients"])
        lines += beside_writing(of["per-sample gradients"])
    with_jacobian = [row for row in rows if "tape.jacobian" in row["seconds"]]
    if with_jacobian:
        lines += beside_tape_jacobian(with_jacobian)
    if of["norms"]:
        lines += beside_materializing(of["norms"], "Per-sample norms", ("JAX", "Opacus ghost", "BackPACK L2"))
    if of["Gram"]:
        lines += beside_materializing(of["Gram"], "Gram matrix", ("JAX",))
    if of["gradient"]:
        lines += beside_surrogate(of["gradient"])
    by_hand = [row for work in BY_HAND for row in of[work]]
    if by_hand:
        lines += beside_by_hand(by_hand)
    lines += overhead([row for row in rows if row["net"] in NET_ORDER[:2]])
    return lines


def write_tables(rows: list[Row], path: Path | None) -> str:
    """The tables as text, also written to `path`."""
    rows = sorted(rows, key=lambda row: (NET_ORDER.index(row["net"]), row["batch"]))
    found = {name: version for row in rows for name, version in row["versions"].items()}
    versions = ", ".join(f"{name} {version}" for name, version in found.items()) or "no peers"
    threads = sorted({row["threads"] for row in rows})
    largest = max(max(row["largest_difference"].values()) for row in rows)
    lines = [
        "# Speed of the gradient primitive",
        "",
        "`python benchmarks/primitive.py --peer-python …`",
        "",
        f"Milliseconds, medians over interleaved rounds (quartiles in brackets), each side with {threads[0]} "
        f"thread{'s' if threads != [1] else ''} on a machine with {os.cpu_count()} cores, {platform.machine()}, float32; "
        f"{versions}. The gradient is that of log π of the action taken. *rlgrad* is the function called inside a "
        "`tf.function` with `jit_compile=True`, of which the concrete function is called; *rlgrad tf.function* calls the "
        "`tf.function` itself, which takes longer; *rlgrad eager* is the plain call. TensorFlow's own rows are concrete "
        "functions too. JAX is `jit(vmap(grad))`, torch.func "
        "`vmap(grad)`. Before the timing every result was compared with rlgrad's on the same numbers; the largest difference, "
        f"relative to the largest number of the array, was {largest:.1e}.",
        "",
        "Large results cost more to find memory for than to compute, where freed memory goes back to the system after every "
        "call. TensorFlow keeps its memory, torch and JAX on a CPU do not; so there are two sets of tables, the second with "
        "glibc told to keep freed memory in every process.",
        "",
    ]
    for memory, title in MEMORY.items():
        some = [row for row in rows if row["memory"] == memory]
        if some:
            lines += [f"## {title}", "", *tables(some)]
    text = "\n".join([*lines, CAUSES])
    if path is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return text
