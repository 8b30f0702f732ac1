"""`rlgrad export`: write a run's policy as a file that acts without rlgrad."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rlgrad.cli.loading import add_run, check_run, import_tensorflow, load_run
from rlgrad.cli.output import Result, parser_for

if TYPE_CHECKING:
    from rlgrad.policies.policy import Policy

_FORMATS = ("keras", "saved_model", "onnx", "litert")


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "export",
        "Write a run's policy as a file that acts without rlgrad, including its normalizer.",
        "rlgrad export runs/a --format onnx",
    )
    add_run(parser)
    parser.add_argument(
        "--format", choices=_FORMATS, required=True, help="format of the file; docs/export.md lists what reads each"
    )
    parser.add_argument(
        "--output", type=Path, help="file to write, or folder of a SavedModel (default: in the run's folder)"
    )
    return parser


def run(arguments: list[str]) -> Result:
    """Write the file, and list its inputs and outputs."""
    options = parser().parse_args(arguments)
    check_run(options.run)
    import_tensorflow()
    from rlgrad.exporting.formats import SUFFIXES, signature, write
    from rlgrad.exporting.standalone import standalone

    output = options.output or options.run / f"policy{SUFFIXES[options.format] or '_saved_model'}"
    model = standalone(_policy(options))
    written, named = write(model, output, options.format), signature(model)
    lines = [
        f"{verb}  {name:<16} {dtype:<8} (N{''.join(f', {size}' for size in shape)})"
        for side, verb in (("inputs", "takes"), ("outputs", "gives"))
        for name, (dtype, shape) in named[side].items()
    ]
    return Result({"path": written, "format": options.format, **named}, [*lines, f"Wrote {written}"])


def _policy(options: argparse.Namespace) -> "Policy":
    """Return the run's policy. No environment is made, but for a run of before its folder said what the spaces are."""
    from rlgrad.runs.alone import load_policy

    policy = None if options.env else load_policy(options.run, trust=options.trust)
    if policy is None:
        run = load_run(options)
        run.close()
        policy = run.policy
    return policy
