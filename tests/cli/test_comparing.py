"""`rlgrad compare` and `plot`: runs that differ in the seed alone are one."""

import json
import re

import numpy as np
import pytest
import yaml

from rlgrad.analysis import curve_pictures
from rlgrad.analysis.groups import curve, evaluated, grouped, read_run
from rlgrad.cli import main
from rlgrad.cli.fitting import Column, fitted, paragraph

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


@pytest.fixture
def make(tmp_path):
    def make(
        name,
        seed=0,
        greedy=None,
        returns=(1.0, 2.0),
        gamma=0.9,
        agent="ppo",
        env="CartPole-v1",
        update=None,
        **settings,
    ):
        folder = tmp_path / name
        folder.mkdir()
        content = {
            "agent": {"name": agent, "gamma": gamma} | ({"update": update} if update else {}),
            "env": env,
            "seed": seed,
            **settings,
            "resolved": {"x": seed},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(content))
        rows = [f"{100 * (i + 1)},{i + 0.5},{value}" for i, value in enumerate(returns)]
        (folder / "metrics.csv").write_text("\n".join(["time/timesteps,time/seconds,train/return", *rows]) + "\n")
        if greedy is not None:
            kind = {"mean_return": greedy, "std_return": 10.0, "episodes": 100}
            (folder / "evaluation.json").write_text(
                json.dumps({"greedy": kind, "sampled": kind, "reward_threshold": 475.0, "solved": False})
            )
        return folder

    return make


def test_runs_that_differ_in_the_seed_alone_are_one_group(make):
    paths = [make("a0", 0), make("b", 0, gamma=0.99), make("a2", 2), make("a1", 1, evaluation_episodes=3)]
    groups, left_out = grouped(paths)
    assert [[run.path.name for run in group.runs] for group in groups] == [["a0", "a1", "a2"], ["b"]]
    assert left_out == []


def test_a_run_is_counted_once(make):
    a, b = make("a", 1), make("copy", 1)
    groups, left_out = grouped([a, a, b])
    assert [len(group.runs) for group in groups] == [1]
    assert left_out == [a, b]


def test_models_given_as_objects_tell_runs_apart(make):
    a, b, c = make("a", 0), make("b", 1), make("c", 2)
    for path, text in ((a, "{}"), (b, "{}"), (c, "[]")):
        (path / "model.json").write_text(text)
    assert [len(group.runs) for group in grouped([a, b, c])[0]] == [2, 1]


@pytest.mark.parametrize(
    ("other", "labels"),
    [
        ({"gamma": 0.5}, ["ppo, gamma=0.9", "ppo, gamma=0.5"]),
        ({"total_timesteps": 200}, ["ppo", "ppo, total_timesteps=200"]),
        ({"update": {"learning_rate": 0.000123456}}, ["ppo", "ppo, learning_rate=0.0001235"]),
        ({"agent": "/somewhere/else/mine.py:Mine"}, ["ppo", "mine.py:Mine"]),
        ({"agent": "a2c"}, ["ppo", "a2c"]),
        ({"env": "Acrobot-v1"}, ["ppo on CartPole-v1", "ppo on Acrobot-v1"]),
        ({"memory": "gru"}, ["ppo", "ppo, memory=gru"]),
    ],
)
def test_a_label_says_what_tells_a_group_from_the_others(make, other, labels):
    paths = [make("a0", 0), make("a1", 1), make("b0", 0, **other), make("b1", 1, **other)]
    assert [group.label for group in grouped(paths)[0]] == labels


def test_single_runs_are_named_by_what_differs_too(make, tmp_path):
    a, b, c = make("a"), make("b", gamma=0.5), make("c", seed=1, agent="dqn")
    assert [group.label for group in grouped([a])[0]] == ["ppo on CartPole-v1"]
    assert [group.label for group in grouped([a, b, c])[0]] == ["ppo, gamma=0.9", "ppo, gamma=0.5", "dqn"]


def test_a_run_that_did_not_come_to_its_end_is_no_seed_of_those_that_did(make):
    budget = {"total_timesteps": 200}
    runs = [make("a", 0, **budget), make("b", 1, **budget), make("killed", 2, returns=(1.0,), **budget)]
    whole, killed = grouped(runs)[0]
    assert ([run.path.name for run in whole.runs], whole.name) == (["a", "b"], "ppo")
    assert (killed.runs[0].path.name, killed.name) == ("killed", "ppo, unfinished, 100 steps")
    for rule in ("stop_at_return", "patience", "time_budget"):  # by which seeds may end at different steps
        stopped = [make(f"{rule}{i}", i, returns=r, **{rule: 5, **budget}) for i, r in enumerate([(1.0,), (1.0, 2.0)])]
        assert [len(group.runs) for group in grouped(stopped)[0]] == [2]


def test_the_curve_of_seeds_is_their_interquartile_mean_where_all_have_a_return(make):
    a = make("a", 0, returns=("", 2.0, 4.0))  # no episode had ended at 100 steps
    b = make("b", 1, returns=(0.0, 4.0, 8.0))
    (group,), _ = grouped([a, b])
    found = curve(group)
    assert (found.timesteps[0], found.timesteps[-1]) == (200.0, 300.0)
    np.testing.assert_allclose((found.mean[0], found.mean[-1]), (3.0, 6.0))
    np.testing.assert_allclose((found.low[-1], found.high[-1]), (4.0, 8.0))


def test_the_interval_is_over_seeds_where_there_are_several_and_over_episodes_of_one(make):
    a, b = make("a", 0, greedy=100.0), make("b", 1, greedy=200.0)
    (one,), _ = grouped([a])
    assert evaluated(one, "greedy") == pytest.approx((100.0, 100.0 - 1.994, 100.0 + 1.994), abs=1e-3)
    (two,), _ = grouped([a, b])
    assert evaluated(two, "greedy") == (150.0, 100.0, 200.0)
    (unfinished,), _ = grouped([a, make("c", 2)])
    assert evaluated(unfinished, "greedy") is None


def test_compare_prints_a_row_a_group(make, capsys):
    runs = [make("a", 0, greedy=100.0), make("b", 1, greedy=200.0), make("c", gamma=0.5), make("d", 1, greedy=200.0)]
    assert main(["compare", *(run.name for run in runs)]) == 0
    header, first, intervals, second, *rest = capsys.readouterr().out.splitlines()
    assert header.split() == ["group", "environment", "seeds", "greedy", "sampled", "training", "steps"]
    assert first.split() == ["ppo,", "gamma=0.9", "CartPole-v1", "2", "150.0", "150.0", "2.0", "200"]
    assert intervals.split() == [*2 * ["[100,", "200]"], "[2.0,", "2.0]"]
    assert second.split() == ["ppo,", "gamma=0.5", "CartPole-v1", "1", "–", "–", "2.0", "200"]
    assert "Not shown for lack of room, but by --json: seconds." in rest
    assert "  ppo, gamma=0.5 on CartPole-v1: c" in rest
    assert rest[-1] == "Left out, since other runs have the same settings and seed: d."


def test_compare_fits_80_columns_and_keeps_environments_and_budgets_apart(make, capsys):
    long = {"env": "/home/somebody/with/a/long/path/environments.py:AnEnvironmentWithALongName"}
    runs = [
        make(f"{i}-{seed}", seed, greedy=-12345.6 * (seed + 1), returns=(-98765.4, -12345.6 * (seed + 1)), **settings)
        for i, settings in enumerate([long, {"total_timesteps": 10**7}, {"gamma": 0.123456}, {"memory": "gru"}])
        for seed in range(2)
    ]
    assert main(["compare", *(run.name for run in runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.startswith("ppo")]
    assert len(rows) == 4
    assert sum("CartPole-v1" in row for row in rows) == 3
    begin, end = lines[0].index("environment"), lines[0].index("seeds") - 2
    broken = "".join(line[begin:end].strip() for line in lines[1 : lines.index(rows[1])])
    assert broken == "environments.py:AnEnvironmentWithALongName"


def test_a_name_of_a_column_breaks_between_words_else_after_its_signs():
    names = ["reinforce, total_timesteps=20000, num_envs=8", "a2c, my_agents.file:Mine", "x" * 30]
    table, _ = fitted([Column("group", names, right=False, least=14), Column("n", ["1", "2", "3"])], (), 17)
    assert [row[0] for row in table.rows] == [
        *("reinforce,", " total_", " timesteps=", " 20000,", " num_envs=8"),
        *("a2c, my_", " agents.file:", " Mine"),
        *("x" * 14, " " + "x" * 13, " " + "x" * 3),
    ]
    assert paragraph("ppo, gamma=0.5 on Cart: runs/some/where", 20).split("\n") == [
        "  ppo, gamma=0.5 on",
        "    Cart:",
        "    runs/some/where",
    ]


def test_compare_leaves_out_what_finds_no_room_and_nothing_where_there_is_some(make, capsys, monkeypatch):
    runs = [make("a", 0, greedy=100.0).name, make("b", 1, greedy=200.0).name]
    for width, expected in ((200, ["sampled", "training", "steps", "seconds"]), (50, ["steps"])):
        monkeypatch.setenv("COLUMNS", str(width))
        assert main(["compare", *runs]) == 0
        assert capsys.readouterr().out.splitlines()[0].split()[4:] == expected


def test_compare_for_machines(make, capsys):
    runs = [make("a", 0, greedy=100.0), make("b", 1, greedy=200.0), make("c", gamma=0.5)]
    assert main(["compare", "--json", *(run.name for run in runs)]) == 0
    both, alone = json.loads(capsys.readouterr().out)
    assert both["seeds"] == [0, 1]
    assert both["greedy"] == {"mean": 150.0, "low": 100.0, "high": 200.0}
    assert (alone["runs"], alone["greedy"], alone["train_return"]["low"]) == (["c"], None, None)


def test_plot_says_which_runs_are_one_curve(make, capsys, tmp_path):
    runs = [make("a", 0, greedy=100.0), make("b", 1, greedy=200.0), make("c", gamma=0.5, returns=())]
    assert main(["plot", *(run.name for run in runs), "--output", "all.png"]) == 0
    assert capsys.readouterr().out == "Wrote all.png\nppo, gamma=0.9: seeds 0, 1\nppo, gamma=0.5: seeds 0\n"
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    assert main(["plot", "a", "b", "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert group["curve"]["mean"][-1] == 2.0


def test_plot_takes_a_metric_an_axis_a_size_labels_and_a_style(make, capsys, tmp_path):
    runs = [make("a", 0, greedy=100.0), make("b", 1, greedy=200.0), make("c", gamma=0.5, returns=(4.0, 2.0, 6.0))]
    names = [run.name for run in runs]
    (tmp_path / "paper.mplstyle").write_text("font.family: serif\n")
    look = ["--labels", "ours", "theirs", "--title", "", "--size", "3.3", "2.2", "--style", "paper.mplstyle"]
    assert main(["plot", *names, "--output", "a.svg", "--x", "seconds", "--smooth", "2", *look]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "ppo, gamma=0.9, as 'ours': seeds 0, 1",
        "ppo, gamma=0.5, as 'theirs': seeds 0",
    ]
    assert float(re.search(r'width="([\d.]+)pt"', (tmp_path / "a.svg").read_text())[1]) == pytest.approx(3.3 * 72)
    assert main(["plot", "c", "--json", "--x", "seconds", "--smooth", "2"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert group["curve"]["timesteps"] == [0.5, 1.5, 2.5]
    assert group["curve"]["mean"] == [4.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--metric", "train/retrun"], "No run has a metric 'train/retrun'. Did you mean 'train/return'"),
        (["--labels", "a", "b"], "There are 1 curves (ppo on CartPole-v1) and 2 labels"),
        (["--style", "nowhere.mplstyle"], "matplotlib has no style 'nowhere.mplstyle'"),
        (["--size", "0", "3"], "--size is above 0, got 0"),
        (["--smooth", "0"], "--smooth is above 0"),
    ],
)
def test_what_plot_cannot_draw_is_said(make, options, says, capsys):
    make("a")
    assert main(["plot", "a", *options]) == 2
    assert says in capsys.readouterr().err


def test_evaluations_are_beside_the_curves_and_not_at_steps_that_were_not_taken(make, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda figure, file, **_: drawn.append(figure) or file.touch()
    )
    curve_pictures.plot_runs([make("a", 0, greedy=100.0)], tmp_path / "a.png")
    axes, side = drawn[0].axes
    assert axes.get_title() == "CartPole-v1"
    assert max(max(line.get_xdata(), default=0.0) for line in axes.get_lines() if len(line.get_xdata()) > 1) <= 200.0
    assert [point.get_ydata()[0] for point in side.get_lines()[:1]] == [100.0]
    assert list(side.get_xticks()) == []
    assert axes.xaxis.get_major_formatter()(100_000.0, 0) == "100,000"


def test_a_run_without_metrics_is_said_by_name(make, capsys):
    (make("a") / "metrics.csv").unlink()
    for command in ("plot", "compare"):
        assert main([command, "a"]) == 2
        assert "a/metrics.csv" in capsys.readouterr().err


def test_the_settings_of_a_run_are_flat(make):
    run = read_run(make("a", 3, env_kwargs={"b": {"c": 1}}))
    assert run.seed == 3
    assert run.settings == {"agent.name": "ppo", "agent.gamma": 0.9, "env": "CartPole-v1", "env_kwargs.b.c": 1}
