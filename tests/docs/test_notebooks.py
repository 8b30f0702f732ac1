"""The notebooks of examples/: saved with the outputs of a whole run, readable in a narrow window, and running as they stand."""

import json
import re
from pathlib import Path

import matplotlib
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = {file.stem: json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.ipynb"))}
AGAIN = "python docs/site/notebooks.py runs them and saves their outputs"


def code_cells(name):
    return [cell for cell in NOTEBOOKS[name]["cells"] if cell["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


def test_the_page_of_notebooks_lists_each_of_them():
    linked = re.findall(r"\]\(([\w-]+)\.ipynb\)", (FOLDER / "README.md").read_text())
    assert sorted(linked) == sorted(NOTEBOOKS)
    assert len(linked) >= 5


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_was_saved_after_one_run_from_its_beginning(name):
    cells = code_cells(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), AGAIN
    kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert "error" not in kinds
    assert any("image/png" in output.get("data", ()) for cell in cells for output in cell["outputs"])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_say_nothing_of_the_machine_that_made_them(name):
    """No folders, no warnings, no times: another run on another machine prints the same kind of thing."""
    for cell in code_cells(name):
        for output in cell["outputs"]:
            assert output.get("name") != "stderr", source(cell)
            text = "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
            assert not re.search(r"(^|[\s'\"])/(tmp|home|root|usr|work)\b|Warning", text), text


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_code_fits_80_columns(name):
    assert [line for cell in code_cells(name) for line in source(cell).splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_of_a_notebook_lead_somewhere(name):
    prose = "\n".join(source(cell) for cell in NOTEBOOKS[name]["cells"] if cell["cell_type"] == "markdown")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", prose) if "://" not in target]
    assert targets
    assert [target for target in targets if not (FOLDER / target).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    namespace = {"__name__": "notebook"}
    for cell in code_cells(name):
        exec(compile(source(cell), name, "exec"), namespace)
