"""What is gathered from one row to the next."""

import json
import math

import pytest

from rlgrad.data import Episode
from rlgrad.metrics import WINDOW, Journal


def test_a_row_has_the_means_of_its_updates_and_of_the_last_hundred_episodes():
    journal = Journal(["train/return", "train/loss", "other"])
    journal.note([{"loss": 1.0}, {"loss": 4.0}], [Episode(float(i), i, True) for i in range(30)])
    journal.note([{"loss": 1.0}], [Episode(float(i), i, True) for i in range(30, 120)])
    row = journal.row()
    # Of 120 episodes the last hundred are 20 … 119, whose mean is 69.5.
    assert row == {"train/return": 69.5, "train/length": 69.5, "train/episodes": 120.0, "train/loss": 2.0}
    assert WINDOW == 100
    journal.log(row)
    assert journal.history["train/return"] == [69.5]
    assert journal.history["train/loss"] == [2.0]
    assert math.isnan(journal.history["other"][0]), "a metric that the row does not have"
    journal.note([{"loss": 7.0}], [])
    assert journal.row() == {**row, "train/loss": 7.0}, "updates of the row before do not count again; episodes do"


def test_before_an_episode_has_finished_there_is_no_return():
    journal = Journal([])
    journal.note([{"loss": 1.0}], [])
    row = journal.row()
    assert math.isnan(row["train/return"])
    assert math.isnan(row["train/length"])
    assert row["train/episodes"] == 0.0


def test_a_restored_journal_goes_on_in_the_middle_of_a_row():
    first, names = Journal(["train/loss"]), ["train/loss", "new"]
    first.note([{"loss": 1.0}], [Episode(float(i), 1, True) for i in range(100)])
    first.log(first.row())
    first.note([{"loss": 2.0}], [Episode(200.0, 3, False)])
    again = Journal(names)
    again.restore(json.loads(json.dumps(first.state())), {"train/loss": [1.0]})
    assert again.history["train/loss"] == [1.0]
    assert len(again.history["new"]) == 1
    assert math.isnan(again.history["new"][0]), "a metric that was not logged before has no numbers there"
    for journal in (first, again):
        journal.note([{"loss": 5.0}], [Episode(300.0, 5, True)])
    row = again.row()
    assert row == first.row()
    # The last hundred are 2 … 99, 200 and 300.
    assert row["train/return"] == pytest.approx((sum(range(2, 100)) + 500) / 100)
    assert row["train/loss"] == 3.5
    assert again.episodes == 102
