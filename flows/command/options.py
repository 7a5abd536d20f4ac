"""A command line that is made from the fields of an options model: each option is defined in one place."""

from __future__ import annotations

import argparse
import shutil
import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from assay import __version__
from assay.config.options import Chosen, CommandLine, option_name, options_from, read_config_file
from assay.core.errors import UserMistake
from assay.core.text import did_you_mean

Options = TypeVar("Options", bound=BaseModel)

#: An option of each command that a deployment can carry out too.
DeploymentName = Annotated[
    str | None,
    Field(
        title="Deployment",
        description="Have this deployment of the server at PREFECT_API_URL do the run, and follow it. "
        "Paths and models are then those that the deployment's operator set up.",
    ),
    CommandLine("who does it", "NAME"),
]

_SHOWN = "what it shows"

#: Two options of each command that scripts run.
Quiet = Annotated[
    bool,
    Field(title="Quiet", description="Show warnings and errors, and nothing else."),
    CommandLine(_SHOWN),
]
AsJson = Annotated[
    bool,
    Field(title="JSON", description="Print the result to standard output as JSON, and nothing else there."),
    CommandLine(_SHOWN),
]

_WIDEST_HELP = 100


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserMistake(message)


class _HelpFormat(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, _WIDEST_HELP) - 2
        super().__init__(prog, max_help_position=28, width=width)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.nargs == "+":
            return f"{action.metavar} …"
        return super()._format_args(action, default_metavar)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return f"--[no-]{action.option_strings[0].removeprefix('--')}"
        return super()._format_action_invocation(action)


def parse(
    kind: type[Options], arguments: Sequence[str], *, program: str, summary: str, examples: str
) -> Options:
    """The options from ``arguments`` and from the file that ``--config`` names.

    A typed option overrides the file's. ``--help`` and ``--version`` print and exit. Every mistake raises
    UserMistake, which names the option, or the file and the key.
    """
    parser = _parser(kind, program, summary, examples)
    found, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        word = unknown[0].partition("=")[0]
        if not word.startswith("-"):
            raise UserMistake(f"{word!r} follows no option that takes it; see --help")
        known = [*map(option_name, kind.model_fields), "--config", "--version", "--help"]
        raise UserMistake(f"unknown option {word!r}{_meant(word, known)}")
    typed = vars(found)
    config_file = typed.pop("config", None)
    filed = read_config_file(config_file, kind) if config_file else {}
    return options_from(kind, typed=typed, filed=filed, config_file=config_file)


#: Names of options in other tools, and the option here that does the same.
_OTHER_NAMES = {
    "--threshold": "--keep",
    "--min-score": "--keep",
    "--filter": "--keep",
    "--rule": "--keep",
    "--where": "--keep",
    "--data": "--input",
    "--dataset": "--input",
    "--file": "--input",
    "--out": "--output",
    "--output-dir": "--output",
    "--to": "--export",
    "--reward-model": "--model",
    "--precision": "--dtype",
    "--max-length": "--max-tokens",
    "--num-workers": "--workers",
    "--jobs": "--workers",
    "--top": "--target",
    "--best": "--target",
    "--sort": "--by",
    "--group-by": "--group",
}


def _meant(word: str, known: Sequence[str]) -> str:
    other = _OTHER_NAMES.get(word)
    if other in known:
        return f"; did you mean {other!r}?"
    return did_you_mean(word, known) or "; see --help"


def _parser(kind: type[BaseModel], program: str, summary: str, examples: str) -> argparse.ArgumentParser:
    required = " ".join(
        f"{option_name(name)} {_metavar(field)}"
        for name, field in kind.model_fields.items()
        if field.is_required()
    )
    parser = _Parser(
        prog=program,
        usage=f"{program} {required} [option …]\n       {program} --config FILE [option …]",
        description=summary,
        epilog=examples.replace("PROGRAM", program),
        formatter_class=_HelpFormat,
        allow_abbrev=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
    )
    groups: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        shown = _shown(field)
        if shown.group not in groups:
            groups[shown.group] = parser.add_argument_group(shown.group)
        _add(groups[shown.group], name, field)
    others = parser.add_argument_group("and")
    others.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file with these options by name, such as 'model: starter'. A typed option overrides it.",
    )
    others.add_argument("--version", action="version", version=__version__, help="Show the version and exit.")
    others.add_argument("--help", "-h", action="help", help="Show this and exit.")
    return parser


def _add(group: Any, name: str, field: FieldInfo) -> None:
    kind = field.annotation
    arguments: dict[str, Any] = {"dest": name, "help": _help(field)}
    if kind is bool or set(get_args(kind)) == {bool, type(None)}:
        arguments["action"] = argparse.BooleanOptionalAction
    else:
        arguments["metavar"] = _metavar(field)
        if get_origin(kind) is list:
            arguments.update(action="extend", nargs="+")
        elif _takes_several(kind):
            arguments["action"] = "append"
    group.add_argument(option_name(name), **arguments)


def _takes_several(kind: Any) -> bool:
    """Whether it takes one value, or a list of values."""
    return get_origin(kind) in (Union, types.UnionType) and any(
        get_origin(get_args(one)[0] if get_origin(one) is Annotated else one) is list
        for one in get_args(kind)
    )


def _shown(field: FieldInfo) -> CommandLine:
    return next(about for about in field.metadata if isinstance(about, CommandLine))


def _metavar(field: FieldInfo) -> str:
    return _shown(field).metavar or "|".join(_choices(field.annotation, field.metadata)) or "VALUE"


def _choices(kind: Any, about: Sequence[object] = ()) -> list[str]:
    """The words that an option allows, where they are few: those of a Literal or a table, also in a list."""
    for one in about:
        if isinstance(one, Chosen):
            return list(one.names()) if one.listed_by is None else [f"those that `{one.listed_by}` lists"]
    if get_origin(kind) is Annotated:
        return _choices(get_args(kind)[0], get_args(kind)[1:])
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    if get_origin(kind) in (list, Union, types.UnionType):
        return [choice for inner in get_args(kind) for choice in _choices(inner)]
    return []


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    if _shown(field).metavar and (choices := _choices(field.annotation, field.metadata)):
        text += f" One of: {', '.join(choices)}."
    if get_origin(field.annotation) is list:
        text += " May be repeated."
    elif _takes_several(field.annotation):
        text += " May be repeated, for one of several models each: NAME:VALUE."
    default = field.get_default(call_default_factory=True, validated_data={})
    if default not in (PydanticUndefined, None, False, []):
        default = " ".join(default) if isinstance(default, list) else default
        text += f" Default: {default}."
    return text.replace("%", "%%")
