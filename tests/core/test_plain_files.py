"""Files are opened themselves, whole or not at all, and not beyond their size; YAML stands for no more than it says."""

import os

import pytest
import yaml

from rlgrad.core import plain_files, yaml_documents
from rlgrad.core.faults import whole, write_whole


def test_writing_replaces_a_link_and_leaves_alone_what_it_leads_to(tmp_path):
    (tmp_path / "theirs").write_text("as it was")
    for name in ("run.json", "unfinished.partial", "unfinished.partial.json"):
        (tmp_path / name).symlink_to(tmp_path / "theirs")
    write_whole(tmp_path / "run.json", b"new")
    with whole(tmp_path / "picture.png") as partial:
        assert partial.suffix == ".png"
        partial.write_bytes(b"drawn")
    assert (tmp_path / "theirs").read_text() == "as it was"
    assert ((tmp_path / "run.json").read_text(), (tmp_path / "picture.png").read_text()) == ("new", "drawn")
    assert not (tmp_path / "run.json").is_symlink()


def test_a_file_whose_writing_fails_stays_as_it_was(tmp_path):
    write_whole(tmp_path / "a.png", b"old")

    def fail():
        with whole(tmp_path / "a.png") as partial:
            partial.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"old")]


def test_reading_takes_regular_files_of_the_expected_size_alone(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    assert (
        plain_files.read_bytes(tmp_path / "file", 5)
        == plain_files.read_bytes(tmp_path / "link", 5, follow=True)
        == b"12345"
    )
    for name, message in (("file", "has 5 bytes, and at most 4"), ("link", "is a link"), ("pipe", "no regular file")):
        with pytest.raises(ValueError, match=message):
            plain_files.read_bytes(tmp_path / name, 4)
    with pytest.raises(ValueError, match="is a link"):
        plain_files.appending(tmp_path / "link")
    for name, message in (("link", "is a link"), ("pipe", "neither a file nor a folder")):
        place = tmp_path / f"with_{name}"
        place.mkdir()
        (tmp_path / name).rename(place / name)
        with pytest.raises(ValueError, match=message):
            plain_files.require_plain(place)


def test_aliases_and_merges_that_people_write_are_read_as_yaml_reads_them():
    text = "a: &a {x: [1, 2], y: 2020-01-01}\nb: *a\nc: {<<: *a, x: 3}\nd: !!set {q, r}\n"
    assert yaml_documents.load(text) == yaml.safe_load(text)
    assert yaml_documents.load("") is None


DOUBLED = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 18))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]", "contains it"),
        (DOUBLED, "100,000"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("!!int ''", "index"),
    ],
)
def test_yaml_that_stands_for_too_much_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        yaml_documents.load(text)
