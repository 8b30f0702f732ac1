"""`rlgrad completion`: print a script with which a shell completes commands, options and names.

At each press of the Tab key the script calls `rlgrad completion candidates WORDS`, which offers what is installed. The call
imports no TensorFlow, and Gymnasium only to list environments. So it does not offer the agents' own options.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path

from rlgrad.cli import COMMANDS
from rlgrad.cli.output import Result, parser_for
from rlgrad.core import registry

# WORDS are separated by tabs; the last one is the word at the cursor. If nothing is offered, the shell completes file names.
_SCRIPTS = {
    # Bash cuts words at the characters of COMP_WORDBREAKS, ':' and '=' among them, and inserts only what follows the cut.
    "bash": """\
_rlgrad() {
    local line="${COMP_LINE:0:COMP_POINT}" words current IFS=$' \\t\\n'
    read -ra words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    current="${words[${#words[@]}-1]}"
    IFS=$'\\t'; line="${words[*]}"
    IFS=$'\\n'; COMPREPLY=($(rlgrad completion candidates "$line" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*[:=]}"}"}")
}
complete -o default -F _rlgrad rlgrad
""",
    "zsh": """\
#compdef rlgrad
_rlgrad() {
    local -a found
    found=("${(@f)$(rlgrad completion candidates "${(pj:\\t:)words[1,CURRENT-1]}"$'\\t'"$PREFIX" 2>/dev/null)}")
    if [[ -n "$found[1]" ]]; then compadd -- "${found[@]}"; else _files; fi
}
compdef _rlgrad rlgrad
""",
    "fish": """\
function __rlgrad_candidates
    set -l current (commandline -ct)
    set -l found (rlgrad completion candidates (string join \\t -- (commandline -opc) "$current") 2>/dev/null)
    if count $found >/dev/null
        printf '%s\\n' $found
    else
        __fish_complete_path "$current"
    end
end
complete -c rlgrad -f -a '(__rlgrad_candidates)'
""",
}


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "completion",
        "Print a script with which a shell completes rlgrad's commands, options and names.",
        'eval "$(rlgrad completion bash)"                                     # in ~/.bashrc',
        'eval "$(rlgrad completion zsh)"                                      # in ~/.zshrc, after compinit',
        "rlgrad completion fish > ~/.config/fish/completions/rlgrad.fish",
    )
    parser.add_argument("shell", choices=_SCRIPTS, help="the shell")
    return parser


def run(arguments: list[str]) -> Result:
    """Print the script, or the candidates if the script calls for them."""
    if arguments[:1] == ["candidates"]:
        return Result(None, candidates("\t".join(arguments[1:]).split("\t")))
    options = parser().parse_args(arguments)
    script = _SCRIPTS[options.shell].rstrip()
    return Result({"shell": options.shell, "script": script}, [script])


def candidates(words: Sequence[str]) -> list[str]:
    """Return the candidates for the last word.

    Args:
        words: `rlgrad` and the words after it.

    Returns:
        Whole words that begin with the last one. If there are none, the shell offers file names.
    """
    _, *before, current = words if len(words) > 1 else [*words, ""]
    if not before:
        return _beginning(current, [*COMMANDS, "--help", "--version"])
    if before[0] not in COMMANDS:
        return []
    parser = import_module(COMMANDS[before[0]]).parser()
    option, equals, value = current.partition("=")
    if equals and option.startswith("-"):
        return [f"{option}={each}" for each in _values(_option(parser, option), value)]
    taking, count = _open(parser, before[1:])
    if current.startswith("-"):
        return _beginning(current, (text for action in parser._actions for text in action.option_strings))
    positionals = [action for action in parser._actions if not action.option_strings]
    return _values(taking or (positionals[min(count, len(positionals) - 1)] if positionals else None), current)


def _open(parser: argparse.ArgumentParser, given: Sequence[str]) -> tuple[argparse.Action | None, int]:
    """Return the option whose value comes next, if there is one, and the number of positional arguments so far."""
    taking: argparse.Action | None = None
    count = 0
    for word in given:
        if word.startswith("-"):
            action = _option(parser, word.partition("=")[0])
            # An option of an agent is unknown here: the word after it counts as its value.
            unknown = argparse.Action([], "unknown")
            taking = None if "=" in word or (action is not None and action.nargs == 0) else action or unknown
        elif taking is None:
            count += 1
        elif taking.nargs not in ("*", "+"):
            taking = None
    return taking, count


def _option(parser: argparse.ArgumentParser, text: str) -> argparse.Action | None:
    return next((action for action in parser._actions if text in action.option_strings), None)


def _values(action: argparse.Action | None, current: str) -> list[str]:
    if action is None:
        return []
    if action.choices is not None:
        return _beginning(current, map(str, action.choices))
    return _beginning(current, _NAMES[action.dest](current)) if action.dest in _NAMES else []


def _beginning(current: str, texts: Iterable[str]) -> list[str]:
    return [text for text in texts if text.startswith(current)]


def _runs(current: str) -> list[str]:
    home = Path(current[: current.rfind("/") + 1])
    return sorted(str(file.parent) for depth in ("*", "*/*") for file in home.glob(f"{depth}/config.yaml"))


def _targets(current: str) -> list[str]:
    del current
    return [*registry.configs(), *sorted(registry.agents())]


def _envs(current: str) -> list[str]:
    del current
    from rlgrad.cli.commands.envs import ids

    return ids()


_NAMES: dict[str, Callable[[str], list[str]]] = {  # by the name of the argument
    "run": _runs,
    "runs": _runs,
    "from": _runs,
    "target": _targets,
    "env": _envs,
}
