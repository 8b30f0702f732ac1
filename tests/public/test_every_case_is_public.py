"""Each test of these folders stands for one question or case that somebody met in public, and says where."""

import ast
import re
from pathlib import Path

import pytest

ADDRESS = re.compile(r"https://\S+")


def documented(folder):
    """{test: the addresses in its docstring} of all files that are about cases."""
    found = {}
    for path in sorted((Path(__file__).parent / folder).glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[f"{path.stem}.{node.name}"] = ADDRESS.findall(ast.get_docstring(node) or "")
    return found


@pytest.mark.parametrize(("folder", "least"), [("gradients", 22), ("runs", 20)])
def test_every_test_names_one_address_that_no_other_names(folder, least):
    cases = documented(folder)
    assert [name for name, addresses in cases.items() if len(addresses) != 1] == []
    addresses = [address for (address,) in cases.values()]
    assert len(set(addresses)) == len(addresses) >= least
