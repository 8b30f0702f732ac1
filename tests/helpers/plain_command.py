"""The command line in a process of its own, with programs that run as plain graphs: where a test is about something else."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from helpers import xla
    from rlgrad.cli import main

    xla.choose(by_rule=False)
    sys.exit(main())
