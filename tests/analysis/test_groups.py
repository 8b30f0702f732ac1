"""Which runs share a row of `rlgrad compare` and a line of `rlgrad plot`: those that differ in the seed alone."""

import itertools
import json

import pytest
import yaml

from rlgrad.analysis.groups import curve, grouped


def folder(path, steps=(100, 200), seed=0, evaluated=False, **settings):
    """A run's folder, as far as it is read."""
    path.mkdir()
    content = {"agent": {"name": "a2c", "gamma": 0.99}, "env": "CartPole-v1", "total_timesteps": 200, "seed": seed}
    (path / "config.yaml").write_text(yaml.safe_dump(content | settings))
    rows = [f"{step},{10.0 * i}" for i, step in enumerate(steps, start=1)]
    (path / "metrics.csv").write_text("\n".join(["time/timesteps,train/return", *rows]) + "\n")
    if evaluated:
        results = {"mean_return": 1.0, "std_return": 0.0, "episodes": 2}
        (path / "evaluation.json").write_text(json.dumps({"greedy": results, "sampled": results}))
    return path


def shape(groups):
    return sorted(sorted(run.path.name for run in group.runs) for group in groups)


def test_seeds_share_a_group_and_budgets_environments_and_settings_do_not(tmp_path):
    alike = [folder(tmp_path / f"a{seed}", seed=seed) for seed in range(3)]
    longer = folder(tmp_path / "longer", total_timesteps=400)
    other = folder(tmp_path / "other", env="Acrobot-v1")
    wrapped = folder(tmp_path / "wrapped", wrappers=["FlattenObservation"])
    arguments = folder(tmp_path / "arguments", env_kwargs={"g": 9.8})
    groups, left_out = grouped([*alike, longer, other, wrapped, arguments])
    assert shape(groups) == [["a0", "a1", "a2"], ["arguments"], ["longer"], ["other"], ["wrapped"]]
    assert left_out == []


def test_a_run_that_was_continued_is_no_twin_of_one_that_had_these_settings_from_the_beginning(tmp_path):
    whole = [folder(tmp_path / f"whole{seed}", (200, 400), seed=seed, total_timesteps=400) for seed in range(2)]
    changed = [{"timesteps": 200, "before": {"total_timesteps": 200}}]
    resumed = folder(tmp_path / "resumed", (200, 400), seed=2, total_timesteps=400, changed=changed)
    groups, left_out = grouped([*whole, resumed])
    assert shape(groups) == [["resumed"], ["whole0", "whole1"]]
    assert left_out == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_of_twins_the_one_that_is_further_counts_in_whatever_order_they_are_given(order, tmp_path):
    runs = [
        folder(tmp_path / "short", (100,), evaluated=True),
        folder(tmp_path / "long", (100, 200)),
        folder(tmp_path / "evaluated", (100, 200), evaluated=True),
    ]
    (group,), left_out = grouped([runs[i] for i in order])
    assert [run.path.name for run in group.runs] == ["evaluated"]
    assert sorted(path.name for path in left_out) == ["long", "short"]
    assert list(curve(group).timesteps) == [100.0, 200.0]
