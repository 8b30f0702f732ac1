"""Which tests run by default: all but those of `extra_tests.txt`, which it marks `extra`, and those marked `slow` in the code.

    python tests/helpers/tiers.py durations.xml

reads what `pytest --junitxml=durations.xml` has written, and prints the lines that `extra_tests.txt` should have more: of the
parameters of one test that take long all but the quickest, and each other test that takes very long, to be judged by hand. A
test belongs there if others that run by default prove the same on a smaller case.
"""

import collections
import sys
from pathlib import Path
from xml.etree import ElementTree

LIST = Path(__file__).resolve().parents[1] / "extra_tests.txt"
LONG = 0.35  # seconds, of a parameter of a test that has a quicker one
VERY_LONG = 1.7  # seconds, of any other test


def listed():
    """Return the names of the tests of `extra_tests.txt`: all lines but those that are empty or begin with #."""
    return {line for line in LIST.read_text().splitlines() if line and not line.startswith("#")}


def mark(config, items):
    """Mark the tests of `extra_tests.txt`; where every test was collected, each line is the name of one."""
    import pytest

    extra = listed()
    for item in items:
        if item.nodeid in extra:
            item.add_marker("extra")
    if config.args == config.getini("testpaths"):
        gone = sorted(extra - {item.nodeid for item in items})
        if gone:
            raise pytest.UsageError(
                f"{LIST.name} names tests that are not there: {', '.join(gone)}. Take the lines out."
            )


def candidates(cases):
    """Return the names of tests that take long and are not listed, in order: of parameters, and of others.

    Args:
        cases: pairs of a name, `tests/file.py::test[parameter]`, and seconds.
    """
    together = collections.defaultdict(list)
    for name, seconds in cases:
        together[name.split("[")[0]].append((seconds, name))
    quickest = {min(of_one)[1] for of_one in together.values()}
    every = [case for of_one in together.values() for case in of_one]
    known = listed()
    parameters = {name for seconds, name in every if seconds > LONG and name not in quickest}
    others = {name for seconds, name in every if seconds > VERY_LONG and name in quickest}
    return sorted(parameters - known), sorted(others - known)


def _cases(file):
    for case in ElementTree.parse(file).iter("testcase"):
        path = case.get("classname").replace(".", "/") + ".py"
        yield f"{path}::{case.get('name')}", float(case.get("time"))


if __name__ == "__main__":
    for heading, names in zip(("parameters", "others, to be judged"), candidates(_cases(sys.argv[1])), strict=True):
        print(f"# {heading}", *names, sep="\n")
