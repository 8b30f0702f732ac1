"""A ring comes back from disk bit for bit, whatever fails in between, and its files take no more than they may."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers.replays import Player, tensors

from rlgrad.core.faults import WriteFault
from rlgrad.replay import Replay, Ring, Segments, disk
from rlgrad.runs import checkpoints

SPEC = {"image": tf.TensorSpec((None, 2, 3), tf.uint8), "number": tf.TensorSpec((None,), tf.float32)}
ACTION = tf.TensorSpec((None,), tf.int64)


def ring_of(capacity=60, slots=3, **options):
    return Ring(Replay(capacity=capacity, warmup=0, n_steps=3, **options), SPEC, ACTION, slots, steps=5, gamma=0.9)


def tree(x):
    image = (np.asarray(x)[..., None, None] * np.arange(1, 7).reshape(2, 3) % 251).astype(np.uint8)
    return {"image": image, "number": x}


def play(ring, player, *, steps=5, idle=()):
    rollout = player.play(steps)
    rollout.mask[:, list(idle)] = 0
    for slot in idle:
        player.begin_anew(slot)
    seen, after = tree(rollout.observations), tree(rollout.final_observations)
    ring.write(tensors(rollout._replace(observations=seen, final_observations=after)))
    if ring.settings.prioritized:
        drawn = ring.draw(tf.constant([1, 2]), 10)
        ring.reprioritize(drawn.rows, tf.abs(drawn.rewards))


def draws(ring):
    return [x.numpy() for x in tf.nest.flatten(ring.draw(tf.constant([3, 4]), 300, 0.5))]


def require_same_draws(ring, expected):
    for found, known in zip(draws(ring), expected, strict=True):
        np.testing.assert_array_equal(found, known)


@pytest.mark.parametrize("prioritized", [False, True])
def test_every_draw_after_a_restore_is_the_same_to_the_bit_and_so_is_every_later_one(tmp_path, prioritized):
    ring, player, segments = ring_of(prioritized=prioritized), Player(3), Segments(tmp_path / "replay")
    other = ring_of(prioritized=prioritized)
    for i in range(24):
        play(ring, player, idle=[i % 3] if i % 5 == 4 else [])
        if i % 3 == 2:
            manifest = segments.save(ring)
            Segments(tmp_path / "replay").restore(other, manifest)
            require_same_draws(other, draws(ring))
            assert (int(other.steps), int(other.held)) == (int(ring.steps), int(ring.held))
    players = [Player(3, seed=7) for _ in range(2)]
    for _ in range(8):
        play(ring, players[0])
        play(other, players[1])
    require_same_draws(other, draws(ring))


def test_a_manifest_is_kept_by_a_checkpoint(tmp_path):
    ring, segments = ring_of(prioritized=True), Segments(tmp_path / "replay")
    play(ring, Player(3))
    variables = {"policy": [tf.Variable(1.0)]}
    checkpoints.save(tmp_path / "checkpoints", 1, variables, {"replay": segments.save(ring)})
    other = ring_of(prioritized=True)
    state = checkpoints.load_newest(tmp_path / "checkpoints", variables)
    Segments(tmp_path / "replay").restore(other, state["replay"])
    require_same_draws(other, draws(ring))


def test_saving_writes_what_is_new(tmp_path):
    ring, player, segments = ring_of(capacity=3000), Player(3), Segments(tmp_path)
    for _ in range(40):
        play(ring, player)
    segments.save(ring)
    before = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    play(ring, player)
    manifest = segments.save(ring)
    new = [path for path in tmp_path.iterdir() if path.name not in before]
    assert sum(path.stat().st_size for path in new) < 0.1 * sum(before.values())
    assert before.keys() < {file["name"] for file in manifest["files"]}
    count = len(list(tmp_path.iterdir()))
    assert segments.save(ring)["files"] == manifest["files"]
    assert len(list(tmp_path.iterdir())) == count


@pytest.mark.parametrize("idle", [(), (0, 2)])
def test_the_disk_stays_within_its_bound_while_the_ring_wraps(tmp_path, monkeypatch, idle):
    monkeypatch.setattr(disk, "_BYTES", 1000)  # several files at once
    monkeypatch.setattr(disk, "_FILES", 30)
    ring, player, segments, kept = ring_of(), Player(3), Segments(tmp_path), []
    most = 0
    for i in range(40):
        play(ring, player, idle=idle if i % 6 else ())  # some slots hardly move
        kept = [*kept[-1:], segments.save(ring)]
        most = max(most, sum(path.stat().st_size for path in tmp_path.iterdir()))
        segments.prune(kept)
        assert {path.name for path in tmp_path.iterdir()} == {f["name"] for m in kept for f in m["files"]}
    assert most <= disk.bound(ring, 2)
    for manifest in kept:
        Segments(tmp_path).restore(ring_of(), manifest)


class Killed(BaseException):
    """Raised in the place of a file operation."""


OPERATIONS = [
    (os, "fsync"),
    (os, "replace"),
    (os, "open"),
    (Path, "replace"),
    (Path, "unlink"),
    (Path, "open"),
    (Path, "mkdir"),
]


def test_dying_in_any_file_operation_leaves_the_manifest_before_restorable(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "_BYTES", 1000)
    ring, player, folder = ring_of(), Player(3), tmp_path / "replay"
    segments = Segments(folder)
    for _ in range(5):
        play(ring, player)
    manifest, expected = segments.save(ring), draws(ring)
    died = 0
    for number in range(200):
        play(ring, player)
        if _dies_in(number, lambda: (segments.save(ring), segments.prune([manifest]))):
            died += 1
            other = ring_of()
            Segments(folder).restore(other, manifest)
            require_same_draws(other, expected)
        else:
            break
    assert died > 10
    last = segments.save(ring)
    segments.prune([last])
    assert {path.name for path in folder.iterdir()} == {file["name"] for file in last["files"]}
    other = ring_of()
    Segments(folder).restore(other, last)
    require_same_draws(other, draws(ring))


def _dies_in(number, act):
    """Return whether an act needs more file operations than `number`: it dies in the next one."""
    left = [number]
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in OPERATIONS:
            real = getattr(owner, name)

            def operation(*arguments, real=real, **options):
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return real(*arguments, **options)

            patch.setattr(owner, name, operation)
        try:
            act()
        except Killed:
            return True
    return False


def test_a_file_that_was_removed_is_written_again(tmp_path):
    ring, player, segments = ring_of(), Player(3), Segments(tmp_path)
    play(ring, player)
    (tmp_path / segments.save(ring)["files"][0]["name"]).unlink()
    play(ring, player)
    other = ring_of()
    segments.restore(other, segments.save(ring))
    require_same_draws(other, draws(ring))


def test_a_full_disk_is_told_and_the_next_save_is_whole(tmp_path, monkeypatch):
    ring, player, segments = ring_of(), Player(3), Segments(tmp_path)
    play(ring, player)
    segments.save(ring)
    play(ring, player)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(WriteFault, match="cannot be written: No space left on device"):
            segments.save(ring)
    other = ring_of()
    Segments(tmp_path).restore(other, segments.save(ring))
    require_same_draws(other, draws(ring))


@pytest.fixture
def saved(tmp_path):
    ring, player, segments = ring_of(), Player(3), Segments(tmp_path / "replay")
    play(ring, player)
    segments.save(ring)
    play(ring, player)
    manifest = segments.save(ring)
    return tmp_path / "replay", manifest, [tmp_path / "replay" / file["name"] for file in manifest["files"]]


def change(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "missing": Path.unlink,
    "is damaged": change,
    "bytes": lambda path: path.write_bytes(path.read_bytes() + b"0"),
    "damaged: it is not": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "is a link": lambda path: (path.rename(path.with_name("elsewhere")), path.symlink_to(path.with_name("elsewhere"))),
    "no regular file": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("told", DAMAGE)
def test_a_damaged_file_is_refused_by_name_and_the_ring_stays_as_it_was(saved, told):
    folder, manifest, paths = saved
    ring = ring_of()
    play(ring, Player(3, seed=9))
    expected = draws(ring)
    DAMAGE[told](paths[1])
    with pytest.raises(disk.DamagedReplay, match=f"{paths[1].name}.*{told}"):
        Segments(folder).restore(ring, manifest)
    require_same_draws(ring, expected)


def test_a_manifest_of_another_ring_or_with_wrong_contents_is_refused(saved):
    folder, manifest, _ = saved
    segments = Segments(folder)
    for other in (ring_of(capacity=90), ring_of(prioritized=True)):
        with pytest.raises(disk.DamagedReplay, match="made for other observations, actions or settings"):
            segments.restore(other, manifest)
    file = manifest["files"][0]
    for wrong in ({"name": "../../secret"}, {"rows": [[7, 0, 1]]}, {"rows": [[0, 0, 10**9]]}, {"rows": "all"}):
        with pytest.raises(disk.DamagedReplay, match="is no file of one"):
            segments.restore(ring_of(), {**manifest, "files": [{**file, **wrong}]})
    with pytest.raises(disk.DamagedReplay, match="has no sound 'moved'"):
        segments.restore(ring_of(), {**manifest, "counters": {**manifest["counters"], "moved": np.zeros(1)}})
    ring = ring_of()
    with pytest.raises(disk.DamagedReplay, match="do not hold the steps"):
        segments.restore(ring, {**manifest, "files": manifest["files"][:1]})
    assert int(ring.held) == 0


def test_a_folder_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "replay").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link"):
        Segments(tmp_path / "replay").save(ring_of())


def test_a_manifest_without_its_arrays_is_json(saved):
    _, manifest, _ = saved
    json.dumps({**manifest, "counters": None})
    assert all(isinstance(x, np.ndarray) for x in manifest["counters"].values())
