"""The command line in a process of its own, with programs that run as plain graphs: where a test is about something else."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from rlgrad.cli import main
    from rlgrad.cli.loading import import_tensorflow

    import_tensorflow()  # without its lines on stderr, as the command line imports it
    from helpers import xla

    xla.choose(by_rule=False)
    sys.exit(main())
