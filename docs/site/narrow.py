"""Set the code blocks of pages anew, so that they fit 80 columns: `python docs/site/narrow.py docs/PAGE.md …`.

Python goes through ruff; in a shell a comment behind a long command moves above it. A block that fits stays as it is. What no
rule shortens (a long string, a long command) is left, for a person and for the test that says so.
"""

import re
import subprocess
import sys
from pathlib import Path

WIDTH = 80
_COMMENTED = re.compile(r"^(?P<indent>\s*)(?P<code>.*?\S)\s+#\s(?P<comment>[^\"']*)$")


def narrowed(page: str) -> str:
    """Return a page with its blocks of Python and shell commands in `WIDTH` columns."""
    setters = {"python": _python, "sh": _shell}

    def block(match: re.Match[str]) -> str:
        language, code = match[1], match[2].rstrip("\n")
        fits = all(len(line) <= WIDTH for line in code.split("\n"))
        return match[0] if fits else f"```{language}\n{setters[language](code)}\n```"

    return re.sub(r"^```(python|sh)\n(.*?)^```", block, page, flags=re.S | re.M)


def _python(code: str) -> str:
    raised = "\n".join(part for line in code.split("\n") for part in _comment_above(line))
    command = ["ruff", "format", "--isolated", "--line-length", str(WIDTH), "-"]
    return subprocess.run(command, input=raised, capture_output=True, text=True, check=True).stdout.rstrip("\n")


def _shell(code: str) -> str:
    return "\n".join(part for line in code.split("\n") for part in _comment_above(line))


def _comment_above(line: str) -> list[str]:
    """Return the line; if it is too long, its comment nearer to the code, or on a line of its own above."""
    found = _COMMENTED.match(line)
    if len(line) <= WIDTH or not found:
        return [line]
    code, comment = found["indent"] + found["code"], f"# {found['comment']}"
    return [f"{code}  {comment}"] if len(code) + 2 + len(comment) <= WIDTH else [found["indent"] + comment, code]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(narrowed(Path(name).read_text()))
