"""The places where long names may break in a narrow window: after signs, never within a word, and never in a formula."""

import breaks
import pytest


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("entropy_coefficient", ["entropy_", "coefficient"]),
        ("update.policy.learning_rate", ["update.", "policy.", "learning_", "rate"]),
        ("inverted-pendulum-ppo", ["inverted-", "pendulum-", "ppo"]),
        ("train/explained_variance", ["train/", "explained_", "variance"]),
        ("FrameStackObservation", ["Frame", "Stack", "Observation"]),
        ("--agent.entropy-coefficient", ["--agent.", "entropy-", "coefficient"]),
        ("learning_rate=0.00025", ["learning_", "rate=", "0.00025"]),
        ("&lt;configuration&gt;", ["&lt;configuration&gt;"]),
        ("clip_schedule", ["clip_schedule"]),  # short ones stay whole
    ],
)
def test_a_long_name_breaks_after_its_signs(name, pieces):
    assert breaks.with_breaks(f'<p><span class="pre">{name}</span></p>') == (
        f'<p><span class="pre">{"<wbr>".join(pieces)}</span></p>'
    )
    assert breaks.with_breaks(f"<td>in {name}</td>") == f"<td>in {'<wbr>'.join(pieces)}</td>"


@pytest.mark.parametrize(
    "html",
    [
        '<td><a href="../agents/stream-sarsa.html#implementation-choices">x</a></td>',
        r'<td><span class="math">\(\nabla_\theta.log\pi_theta_theta\)</span></td>',
        "<pre>rlgrad train cartpole --agent.entropy-coefficient 0.1</pre>",
        "<p>a-very-long-word-of-prose</p>",
    ],
)
def test_addresses_formulas_and_blocks_of_code_stay_as_they_are(html):
    assert breaks.with_breaks(html) == html
