"""Where long names may go on in the next line of a narrow window: after a sign in them, such as `_`, or before a capital.

A browser breaks a long name nowhere, or, if it is told to, anywhere: `entropy_coefficien|t`. So the names in code and in cells
of tables get places, `<wbr>`, which are no characters: nothing of them is copied.
"""

import re
from typing import Any

LONG = re.compile(r"[^\s<>]{14,}")
AFTER = re.compile(r"(?<=[A-Za-z]\w)[-_./:=,(](?=[A-Za-z0-9\[{\"'&])|(?<=[a-z]{4})(?=[A-Z][a-z]{2})")
CODE = re.compile(r'(?<=<span class="pre">)[^<]+')
CELL = re.compile(r"<td\b.*?</td>", re.S)
TEXT = re.compile(r"(?<=>)[^<>\\]+(?=<)")  # no backslash: formulas are left alone


def with_breaks(html: str) -> str:
    """Return a page's HTML with such places."""
    in_cells = CELL.sub(lambda cell: TEXT.sub(_broken, cell[0]), html)
    return CODE.sub(_broken, in_cells)


def _broken(text: re.Match[str]) -> str:
    return LONG.sub(lambda name: AFTER.sub(r"\g<0><wbr>", name[0]), text[0])


def add(app: Any, name: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Add the places to the body of a page that is about to be written."""
    if "body" in context:
        context["body"] = with_breaks(context["body"])
