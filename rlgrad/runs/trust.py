"""Another person's run folder or config executes nothing that is not installed, unless the user says that it may.

`permissions` lists what a config needs beyond that. A folder that this user made needs no word: when a run begins, what its
config needs is recorded in a folder of the user's own, as editors record which workspaces are trusted. A record holds for one
folder and for exactly these needs. So whatever takes the folder's place can do no more than the run that was there.
"""

import hashlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlgrad.core import plain_files
from rlgrad.core.faults import WriteFault, write_whole
from rlgrad.runs.permissions import Permission, permissions

_log = logging.getLogger("rlgrad")


def require_trust(source: Path, content: Mapping[str, Any], *, trust: bool, training: bool) -> list[Permission]:
    """Refuse a config that needs permissions, unless they were recorded for its source or the user gives them now.

    With `trust` each of them is said, and recorded, before anything happens.

    Args:
        source: the run's folder, or the file of a config that is none's.
        content: of the config.
        trust: the user permits everything.
        training: True if training starts at once. Else what happens only then is not refused.

    Returns:
        The permissions that training would need, and that were not given.

    Raises:
        ValueError: a permission is missing; says what would happen, and what to do.
    """
    needed = permissions(_folder(source), content)
    known = _recorded(source) if needed else frozenset()
    missing = [each for each in needed if str(each) not in known]
    if trust:
        for each in missing:
            _log.warning("%s is trusted to %s.", source, each)
        if missing:
            _record(source, needed)
        return []
    refused = [each for each in missing if training or not each.later]
    if refused:
        raise ValueError(refusal(source, refused))
    return missing


def refusal(source: Path, refused: Sequence[Permission]) -> str:
    """Return the sentence that says what a folder or config would do, and how to allow it."""
    more = "" if len(refused) == 1 else f", and {len(refused) - 1} more of the kind"
    return (
        f"{source} would {refused[0]}{more}, and it was not made by you in this place: if you trust its author, say --trust "
        "(in Python trust=True), which names all that it would do."
    )


def remember(source: Path, content: Mapping[str, Any]) -> None:
    """Record that this user made a run or config. An ordinary one needs no permission, and leaves no record.

    Args:
        source: the run's folder, or the file of a config that is none's.
        content: of the config.
    """
    needed = permissions(_folder(source), content)
    if needed:
        _record(source, needed)


def state_folder() -> Path:
    """Return the folder of the records: `rlgrad/trusted` where the system keeps the state of a user's programs."""
    home = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):  # the specification has relative ones ignored
        homes = {"darwin": "~/Library/Application Support", "win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local")}
        home = os.path.expanduser(homes.get(sys.platform, "~/.local/state"))
    return Path(home) / "rlgrad" / "trusted"


def _folder(source: Path) -> Path:
    return source if source.is_dir() else source.parent


def _file(source: Path) -> Path:
    return state_folder() / f"{hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:32]}.json"


def _recorded(source: Path) -> frozenset[str]:
    try:
        content = plain_files.read_json(_file(source))
    except (OSError, ValueError):
        return frozenset()
    known = content.get("permitted", ()) if isinstance(content, dict) else ()
    return frozenset(each for each in known if isinstance(each, str))


def _record(source: Path, needed: Sequence[Permission]) -> None:
    file, permitted = _file(source), sorted(map(str, needed))
    content = json.dumps({"source": str(source.resolve()), "permitted": permitted}, indent=2) + "\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(file, content.encode())
    except (OSError, WriteFault) as error:
        _log.warning(
            "Loading %s will ask for --trust, since %s cannot be written: %s.", source, file, error.strerror or error
        )
