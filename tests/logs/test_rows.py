"""metrics.csv and metrics.jsonl: what a row holds, and which rows a run that goes on keeps."""

import json
import math
from types import SimpleNamespace

import pytest

from rlgrad.logs.csv import CSVLog
from rlgrad.logs.jsonl import JSONLinesLog
from rlgrad.metrics import read_csv

NAMES = ("time/timesteps", "train/return")
FILES = {CSVLog: "metrics.csv", JSONLinesLog: "metrics.jsonl"}


def write(log, path, rows, *, start=0, names=NAMES):
    """A run from step `start` that logs (steps, return) and is then killed: what is on disk is what was flushed."""
    run = SimpleNamespace(path=path, timesteps=start, metrics=names)
    log.on_start(run)
    for row in rows:
        log.on_update(run, dict(zip(names, row, strict=True)))
    return path / FILES[type(log)]


def rows_of(path):
    if path.suffix == ".csv":
        return list(zip(*(read_csv(path)[name] for name in NAMES), strict=True))
    return [tuple(json.loads(line)[name] for name in NAMES) for line in path.read_text().splitlines()]


@pytest.fixture(params=FILES, ids=lambda log: log.__name__)
def log(request):
    return request.param


def test_rows_are_on_disk_as_soon_as_they_are_logged(log, tmp_path):
    assert rows_of(write(log(), tmp_path, [(10, 1.5), (20, 2.5)])) == [(10, 1.5), (20, 2.5)]


def test_a_run_that_goes_on_drops_the_rows_that_it_will_write_again(log, tmp_path):
    write(log(), tmp_path, [(10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0)])
    path = write(log(), tmp_path, [(30, 3.5)], start=20)
    assert rows_of(path) == [(10, 1.0), (20, 2.0), (30, 3.5)]


def test_a_run_that_begins_again_keeps_no_row(log, tmp_path):
    write(log(), tmp_path, [(10, 1.0)])
    assert rows_of(write(log(), tmp_path, [(5, 9.0)], start=0)) == [(5, 9.0)]


def test_a_half_written_last_line_is_dropped(log, tmp_path):
    path = write(log(), tmp_path, [(10, 1.0), (20, 2.0), (30, 3.0)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])  # killed while it wrote the last row
    assert rows_of(write(log(), tmp_path, [(30, 3.5)], start=30)) == [(10, 1.0), (20, 2.0), (30, 3.5)]


def test_kept_rows_stay_as_they_are_to_the_byte(log, tmp_path):
    path = write(log(), tmp_path, [(10, 1 / 3), (20, math.nan)])
    before = path.read_bytes()
    write(log(), tmp_path, [], start=20)
    assert path.read_bytes() == before


def test_a_row_that_cannot_be_read_is_left_out_and_said(log, tmp_path, caplog):
    path = write(log(), tmp_path, [(10, 1.0), (20, 2.0), (30, 3.0)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-2], b"disk trouble\n", lines[-1]]))
    assert rows_of(write(log(), tmp_path, [], start=30)) == [(10, 1.0), (30, 3.0)]
    assert caplog.messages == [f"Row 2 of {path} cannot be read and is left out."]


def test_the_old_file_survives_a_kill_while_it_is_written_anew(log, tmp_path, monkeypatch):
    path = write(log(), tmp_path, [(10, 1.0), (20, 2.0)])
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write(log(), tmp_path, [], start=10)
    assert path.read_bytes() == before


def test_counts_are_written_in_full_so_that_a_long_run_goes_on_at_the_right_row(log, tmp_path):
    """To seven digits 12,345,678 steps would be 12,345,680, and dropped at step 12,345,678."""
    write(log(), tmp_path, [(12_345_678, 1.0), (12_345_679, 2.0)])
    path = write(log(), tmp_path, [], start=12_345_678)
    assert rows_of(path) == [(12_345_678, 1.0)]
    assert "12345678" in path.read_text()


def test_json_has_null_where_there_is_no_finite_number(tmp_path):
    path = write(JSONLinesLog(), tmp_path, [(10, math.nan), (20, math.inf), (30, 1 / 3)])

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    rows = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert [row["train/return"] for row in rows] == [None, None, 1 / 3]
    assert path.read_text().startswith('{"time/timesteps": 10, ')


def test_the_csv_has_seven_digits_and_empty_cells(tmp_path):
    path = write(CSVLog(), tmp_path, [(10, 1 / 3), (20, math.nan), (30, math.inf)])
    assert path.read_text().splitlines() == ["time/timesteps,train/return", "10,0.3333333", "20,", "30,inf"]


def test_a_run_that_goes_on_with_other_callbacks_keeps_the_columns_of_both(tmp_path):
    write(CSVLog(), tmp_path, [(10, 1.0, 0.25)], names=(*NAMES, "eval/old"))
    path = write(CSVLog(), tmp_path, [(20, 2.0, 0.5)], start=10, names=(*NAMES, "eval/new"))
    assert path.read_text().splitlines() == [
        "time/timesteps,train/return,eval/new,eval/old",
        "10,1,,0.25",
        "20,2,0.5,",
    ]


def test_a_damaged_row_keeps_nobody_from_reading_the_others(tmp_path, caplog):
    path = write(CSVLog(), tmp_path, [(10, 1.0), (20, 2.0), (30, 3.0)])
    path.write_bytes(path.read_bytes().replace(b"20,2", b"20,\xff"))
    assert read_csv(path) == {"time/timesteps": [10.0, 30.0], "train/return": [1.0, 3.0]}
    assert caplog.messages == [f"Row 2 of {path} cannot be read and is left out."]


def test_the_csv_of_a_run_without_rows_has_its_columns(tmp_path):
    assert read_csv(write(CSVLog(), tmp_path, [])) == {"time/timesteps": [], "train/return": []}


def test_the_csv_of_a_killed_run_can_be_read(tmp_path):
    path = write(CSVLog(), tmp_path, [(10, 1.0), (20, 2.0)])
    path.write_bytes(path.read_bytes()[:-3])
    assert read_csv(path) == {"time/timesteps": [10.0], "train/return": [1.0]}
