"""`rlgrad report`: write what runs did and how to repeat it as one HTML file."""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlgrad.cli.loading import add_trust, check_run, import_tensorflow
from rlgrad.cli.output import Result, parser_for

if TYPE_CHECKING:
    from rlgrad.analysis.episode_report import EpisodeSteps
    from rlgrad.analysis.groups import Group
    from rlgrad.analysis.reporting import Film

_FILMS = ("episode.mp4", "episode.gif")  # as `record` and `watch` write them
_MOST_FILMS = 4
_LARGEST = 20 * 2**20  # bytes of a film
_SECONDS, _PIXELS = 10.0, 320


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "report",
        "Write what runs did and how to repeat it as one HTML file, which asks nothing of a network: settings, machine, curves "
        "with intervals, evaluations, an episode with the credit of its steps, diagnostics, and a comparison of several runs.",
        "rlgrad report runs/a",
        "rlgrad report runs/ppo-* runs/a2c-* --output comparison.html",
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument(
        "--output", type=Path, help="file to write (default: report.html, in the run's folder if there is one run)"
    )
    parser.add_argument(
        "--no-film", action="store_true", help="play no episode for the page: neither a film nor the credit by step"
    )
    add_trust(parser)
    return parser


def run(arguments: list[str]) -> Result:
    """Write the page."""
    options = parser().parse_args(arguments)
    for run in options.runs:
        check_run(run)
    output = options.output or (options.runs[0] / "report.html" if len(options.runs) == 1 else Path("report.html"))
    if output.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"A report's name ends in .html, got {str(output)!r}.")
    if not output.parent.is_dir():
        raise ValueError(f"There is no folder {str(output.parent)!r} to write {output.name} into.")
    import_tensorflow()  # the diagnostics and the film need it
    from rlgrad.analysis.groups import grouped
    from rlgrad.analysis.reporting import report
    from rlgrad.cli.commands.compare import describe_left_out
    from rlgrad.core.faults import write_whole

    groups, left_out = grouped(options.runs)
    films, episodes = ({}, {}) if options.no_film and not _any_film(groups) else _episodes(groups, options)
    write_whole(output, report(groups, films, left_out, episodes).encode())
    document = {
        "output": output,
        "groups": [{"name": g.name, "env": g.env, "runs": [each.path for each in g.runs]} for g in groups],
        "films": {name: film.caption for name, film in films.items()},
    }
    missing = [f"{name}: {film.caption}" for name, film in films.items() if not film.content]
    return Result(document, [f"Wrote {output}", *missing, *describe_left_out(left_out)])


def _any_film(groups: "Sequence[Group]") -> bool:
    return any((run.path / name).is_file() for group in groups for run in group.runs for name in _FILMS)


def _episodes(
    groups: "Sequence[Group]", options: argparse.Namespace
) -> "tuple[dict[str, Film], dict[str, EpisodeSteps]]":
    """Return a film for each of the first groups, and the credits of an episode that is played now.

    A film that lies in a run's folder is shown instead of one of that episode.
    """
    from rlgrad.analysis.reporting import Film

    films, episodes = {}, {}
    for group in groups[:_MOST_FILMS]:
        name = f"{group.name} on {group.env}"
        if not options.no_film:
            films[name], steps = _played(group.runs[0].path, options)
            if steps is not None:
                episodes[name] = steps
        there = [run.path / name for run in group.runs for name in _FILMS if (run.path / name).is_file()]
        there = [file for file in there if not file.is_symlink() and file.stat().st_size <= _LARGEST]
        if there:
            caption = f"{there[0].name} of {there[0].parent}"
            films[name] = Film(there[0].read_bytes(), there[0].suffix[1:], caption)
    return films, episodes


def _played(folder: Path, options: argparse.Namespace) -> "tuple[Film, EpisodeSteps | None]":
    """Play a greedy episode of a run, and return its first seconds. An environment that cannot be drawn is no error."""
    from rlgrad.analysis.episode_report import EpisodeSteps, small
    from rlgrad.analysis.reporting import Film
    from rlgrad.config import agent_name
    from rlgrad.environments.drawing import without_mujoco_gl
    from rlgrad.learning import step_credits
    from rlgrad.playback import films, viewer
    from rlgrad.runs.training import load

    pictures: list[Any] = []
    steps: list[viewer.Transition] = []
    try:
        with without_mujoco_gl():
            run = load(folder, trust=options.trust, verbose=False)
        try:
            env, file = viewer.drawn(run.config, "rgb_array", calls=run.env_calls), io.BytesIO()
            try:
                with films.gif(file, env.rate, _PIXELS) as write:

                    def keep(picture: Any) -> None:
                        write(picture)
                        pictures.append(small(picture))

                    most = round(_SECONDS * env.rate)
                    (episode,) = viewer.play(
                        run.policy, env, seed=run.config.seed, max_steps=most, on_picture=keep, on_step=steps.append
                    )
            finally:
                env.close()
            so_far = " so far" if episode.cut else ""
            caption = f"{folder}: {episode.steps} steps, return {episode.total:.1f}{so_far}, most likely actions"
            film = Film(file.getvalue(), "gif", caption)
            try:
                credits = step_credits.of_episode(run.learner, steps, run.timesteps / run.config.total_timesteps)
            except Exception as error:  # an agent of the user's may need what one episode does not have
                return film._replace(caption=f"{caption}. No credit by step: {_reason(error)}"), None
        finally:
            run.close()
    except Exception as error:  # a renderer may raise anything
        return Film(b"", "gif", f"No film of {folder}: {_reason(error)}"), None
    said = f"What {agent_name(run.config.agent)} would credit if it learned from this episode, at the last weights. {caption}."
    return film, EpisodeSteps(credits, pictures, said)


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
