"""Code blocks that are set in 80 columns say the same as before."""

import ast
import shutil

import narrow
import pytest

PAGE = """# A page

```sh
rlgrad train cartpole --diagnose --run-dir runs/a                 # signal and noise of the gradients
rlgrad inspect runs/a                                                        # short enough together
```

```python
run = rlgrad.train(agent, "CartPole-v1", total_timesteps=4_096, evaluation_episodes=0, run_dir="runs/a")  # trains
x = f(1)
```

```python
y  =  [1,2]
```
"""


@pytest.mark.skipif(shutil.which("ruff") is None, reason="ruff comes with the extra dev")
def test_blocks_are_narrow_afterwards_and_mean_the_same():
    page = narrow.narrowed(PAGE)
    assert max(map(len, page.splitlines())) <= narrow.WIDTH
    before, after = (text.split("```python\n")[1].split("```")[0] for text in (PAGE, page))
    assert ast.dump(ast.parse(before)) == ast.dump(ast.parse(after))
    assert "# trains\nrun = rlgrad.train(\n" in page
    assert "# signal and noise of the gradients\nrlgrad train cartpole --diagnose --run-dir runs/a\n" in page
    assert "rlgrad inspect runs/a  # short enough together\n" in page
    assert "y  =  [1,2]\n" in page, "a block that fits stays as it is"
    assert narrow.narrowed(page) == page
