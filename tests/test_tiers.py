"""Which tests run by default."""

import pytest
from helpers import tiers


def test_of_parameters_that_take_long_the_quickest_stays_and_other_long_tests_are_told_apart(monkeypatch):
    monkeypatch.setattr(tiers, "listed", lambda: {"t.py::a[3]"})
    cases = [("t.py::a[1]", 2.0), ("t.py::a[2]", 0.5), ("t.py::a[3]", 9.0), ("t.py::b", 3.0), ("t.py::c[x]", 0.2)]
    assert tiers.candidates([*cases, ("t.py::c[y]", 0.3)]) == (["t.py::a[1]"], ["t.py::b"])


def test_a_listed_test_is_marked_and_a_name_of_none_is_an_error(monkeypatch):
    class Item:
        nodeid, marks = "t.py::a", ()

        def add_marker(self, name):
            self.marks = (*self.marks, name)

    class Whole:
        args = ["tests"]

        def getini(self, name):
            return ["tests"]

    item = Item()
    monkeypatch.setattr(tiers, "listed", lambda: {"t.py::a"})
    tiers.mark(Whole(), [item])
    assert item.marks == ("extra",)
    with pytest.raises(pytest.UsageError, match=r"t\.py::a"):
        tiers.mark(Whole(), [])
