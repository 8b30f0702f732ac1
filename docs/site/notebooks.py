"""Run the notebooks of examples/ and save them with their outputs, which is how the site shows them.

`python docs/site/notebooks.py [NAME …]` needs the extra `docs`. Each runs in an empty folder; what libraries say about
themselves when they start is left out.
"""

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "examples"
CHATTER = re.compile(r"^(WARNING: All log messages|[IWE]0000|To enable the following|error: XDG_RUNTIME_DIR)")


def run(file: Path) -> None:
    """Run a notebook from its beginning, and write its outputs into it.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(file, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=folder)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the times of day
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_quiet, cell.outputs) if output is not None]
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, file)


def _quiet(output: Any) -> Any:
    if output.output_type == "stream":
        output.text = "".join(line for line in output.text.splitlines(keepends=True) if not CHATTER.match(line))
        return output if output.text.strip() else None
    return output


if __name__ == "__main__":
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    for name in sys.argv[1:] or sorted(file.stem for file in FOLDER.glob("*.ipynb")):
        print(name)
        run(FOLDER / f"{name}.ipynb")
