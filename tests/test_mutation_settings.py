"""What `python tests/mutation` changes, and the tests that it runs, are files that are there."""

import tomllib
from pathlib import Path

HERE = Path(__file__).parent
SETTINGS = tomllib.loads((HERE / "mutation" / "modules.toml").read_text())
MODULES = SETTINGS["modules"]
EQUIVALENT = tomllib.loads((HERE / "mutation" / "equivalent.toml").read_text())


def test_modules_and_their_tests_are_there():
    tests = {test for tests in (SETTINGS["everywhere"], SETTINGS["settings"], *MODULES.values()) for test in tests}
    named = {*MODULES, *(test for test in tests if test.startswith("tests/"))}
    assert sorted(name for name in named if not (HERE.parent / name.split("::")[0]).exists()) == []


def test_lines_that_mean_the_same_belong_to_modules_that_are_changed():
    assert EQUIVALENT.keys() - MODULES.keys() == {"patterns"}
    reasons = [reason for lines in EQUIVALENT.values() for reason in lines.values()]
    assert [reason for reason in reasons if len(reason) < 10] == [], "reasons that say nothing"
