"""The house stays as docs/house.md draws it: imports run down, no circles, few floors."""

import tomllib
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).resolve().parents[1]

MOST_FLOORS, MOST_MODULES = 10, 10


@pytest.fixture(scope="module")
def files():
    return house.imports()


@pytest.fixture(scope="module")
def rooms(files):
    return house.grouped(files)


def test_no_files_import_each_other_in_a_circle(files):
    assert house.circle(files) == []


def test_rooms_import_from_the_floors_below_alone(files, rooms):
    assert house.runs_up(files, house.floors(rooms)) == []


def test_there_are_at_most_ten_floors(rooms):
    assert max(house.floors(rooms).values()) <= MOST_FLOORS


def test_there_are_at_most_ten_modules_beside_the_packages(rooms):
    beside = [room for room in rooms if (ROOT / "rlgrad" / f"{room}.py").exists()]
    assert len(beside) <= MOST_MODULES, beside


@pytest.mark.parametrize("package", ["gradients", "cli"])
def test_drawers_of_a_room_do_not_import_each_other_in_a_circle(files, package):
    inside = house.grouped({n: t for n, t in files.items() if n.startswith(f"rlgrad.{package}.")}, f"rlgrad.{package}")
    drawers = {name for name in inside if (ROOT / "rlgrad" / package / name).is_dir()}
    assert house.floors({name: inside[name] & drawers for name in drawers}).keys() == drawers


def test_the_page_and_its_picture_are_those_of_the_code(rooms):
    assert house.PAGE.read_text() == house.written(house.PAGE.read_text(), rooms), "run: python docs/site/house.py"
    assert house.PICTURE.read_text() == house.picture(rooms), "run: python docs/site/house.py"


def test_a_circle_and_an_import_that_runs_up_are_noticed():
    files = {"rlgrad.a": {"rlgrad.b.x"}, "rlgrad.b.x": {"rlgrad.c"}, "rlgrad.c": set(), "rlgrad.b.y": {"rlgrad.b.x"}}
    rooms = house.grouped(files)
    assert rooms == {"a": {"b"}, "b": {"c"}, "c": set()}
    assert house.floors(rooms) == {"c": 1, "b": 2, "a": 3}
    assert house.circle(files) == []
    assert house.circle({**files, "rlgrad.c": {"rlgrad.a"}})[0] in files
    assert house.runs_up({**files, "rlgrad.c": {"rlgrad.b.x"}}, house.floors(rooms)) == [("rlgrad.c", "rlgrad.b.x")]


def test_an_import_by_name_inside_a_function_counts_too(tmp_path, monkeypatch):
    (tmp_path / "rlgrad").mkdir()
    (tmp_path / "rlgrad" / "__init__.py").write_text("")
    (tmp_path / "rlgrad" / "a.py").write_text("import importlib\n\ndef f():\n    importlib.import_module('rlgrad.b')\n")
    (tmp_path / "rlgrad" / "b.py").write_text("from rlgrad.a import f\n")
    monkeypatch.setattr(house, "ROOT", tmp_path)
    assert house.imports() == {"rlgrad.a": {"rlgrad.b"}, "rlgrad.b": {"rlgrad.a"}}
    assert len(house.circle(house.imports())) == 3


def test_no_two_files_of_different_rooms_have_one_name():
    """A name says one thing: `registry.py` here and `registry.py` there are two."""
    names = {}
    for name in house.modules():
        last = name.rpartition(".")[2]
        if (
            "commands" not in name and last != "base"
        ):  # a command is named as what it does; each room has its contract in base
            names.setdefault(last, []).append(name)
    twice = {last: where for last, where in names.items() if len(where) > 1}
    assert twice == {}


def test_the_wheel_has_every_room():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "rlgrad").rglob("__init__.py")}
    assert sorted(listed) == sorted(rooms | {f"rlgrad.{name}" for name in ("agents", "envs", "configs")})
