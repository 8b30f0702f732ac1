"""Python that is started in a checkout imports the folder beside it, also where a copy of rlgrad is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_EDITABLE_INSTALLATION = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
sys.path = [sys.argv[1], *(path for path in sys.path if "editable" not in path)]
"""
SAY_WHERE = """
import importlib.util
from rlgrad.core import registry
for name in ("rlgrad", "rlgrad.agents", "rlgrad.envs", "rlgrad.agents.a2c"):
    print(importlib.util.find_spec(name).origin)
print(len(registry.configs()) > 10)
"""


@pytest.mark.skipif(not (ROOT / "agents").is_dir(), reason="the tests of an installed copy, without a checkout")
def test_agents_envs_and_configs_are_found_in_a_checkout():
    program = WITHOUT_EDITABLE_INSTALLATION + SAY_WHERE
    done = subprocess.run([sys.executable, "-c", program, str(ROOT)], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    expected = [ROOT / "rlgrad", ROOT / "agents", ROOT / "envs"]
    files = [*(str(folder / "__init__.py") for folder in expected), str(ROOT / "agents" / "a2c.py")]
    assert done.stdout.split() == [*files, "True"]
