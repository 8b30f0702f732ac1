"""TensorFlow's import, without the lines that its C++ side writes to stderr before any log level is in force."""

import gc
import importlib
import os
import sys
import tempfile

from rlgrad._importing import uncollected


def import_tensorflow() -> None:
    """Import TensorFlow and Keras; what they wrote to stderr is shown only if that fails."""
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            with uncollected():
                importlib.import_module("tensorflow")
                importlib.import_module("keras")
            gc.freeze()  # no later collection need look through it, nor the one at the end of the process
        except BaseException:
            hidden.seek(0)
            os.write(shown, hidden.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
