"""The command line: every verb is a function of the library with the same arguments.

``--help`` and ``list`` answer before anything heavy is imported. A verb's positional arguments are its function's
positional-only ones; its function returns a result that can ``render()`` for people and ``as_dict()`` for programs.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from convarium import __version__
from convarium.errors import ConvariumError, UsageError, nearest

# verb -> (where its function is, what it does), in the order of a classifier's life.
VERBS: dict[str, tuple[str, str]] = {
    "list": ("convarium.listing:list_networks", "the networks of the catalogue"),
    "describe": ("convarium.anatomy.describe:describe", "what a network is made of and what it costs"),
    "train": ("convarium.training.train:train", "train a network on images"),
    "evaluate": ("convarium.evaluation.evaluate:evaluate", "judge a trained run on a data set"),
    "explain": ("convarium.explanation.explain:explain", "draw what a trained run looks at"),
    "export": ("convarium.deploy.export:export", "write a run as one file that runs without this project"),
    "predict": ("convarium.deploy.predict:predict", "name what is in an image"),
    "demo": ("convarium.demo:demo", "all of it, on handwritten digits, in three minutes"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 usage, 3 bad data, 4 a gate, 130/143 stopped."""
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except ConvariumError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone (convarium list | head)
        sys.stderr.close()
        return 0


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb == "--version":
        print(f"convarium {__version__}")
        return 0
    if verb not in VERBS:
        raise UsageError(f"no command {verb!r}; {nearest(verb, VERBS)} (convarium --help)")
    module, name = VERBS[verb][0].split(":")
    function = getattr(import_module(module), name)
    result, as_json = _parse_list(function, rest) if verb == "list" else _parse(verb, function, rest)
    if as_json:
        import json

        print(json.dumps(result.as_dict(), indent=2, default=str))
    else:
        from convarium.console import stdout

        stdout().print(result.render())
    return 0


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {help}" for verb, (_, help) in VERBS.items())
    return (
        "usage: convarium COMMAND ...\n\n"
        "The classic convolutional networks, LeNet-5 to SENet, as their papers have them.\n\n"
        f"{verbs}\n\n"
        "convarium COMMAND --help shows a command's options; every command takes --json.\n"
        "Exit codes: 0 done, 1 failed, 2 usage, 3 bad data, 4 a check failed, 130 stopped (143 by SIGTERM)."
    )


def _parse_list(function: Callable[..., Any], arguments: list[str]) -> tuple[Any, bool]:
    """``list`` by the standard library's parser, so that it answers at once."""
    import argparse

    parser = argparse.ArgumentParser("convarium list", description=inspect.getdoc(function), exit_on_error=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("filter", nargs="?", default="", metavar="FILTER", help="a wildcard, such as 'se_*'")
    parser.add_argument("--exclude", default="", help="a wildcard of names to leave out")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise UsageError(f"convarium list takes [FILTER], --exclude and --json; got {unknown[0]!r}")
    return function(parsed.filter, exclude=parsed.exclude), parsed.json


def _parse(verb: str, function: Callable[..., Any], arguments: list[str]) -> tuple[Any, bool]:
    """Call ``function`` with the parsed arguments; returns its result, and whether ``--json`` was given."""
    import contextlib
    import io

    import tyro

    _check_options(verb, function, arguments)
    command = _with_json(function)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            call = tyro.cli(command, args=arguments, prog=f"convarium {verb}")
    except SystemExit as stop:
        if stop.code:
            raise UsageError(f"{_one_line(said.getvalue())} (convarium {verb} --help)") from None
        raise
    return call()


def _check_options(verb: str, function: Callable[..., Any], arguments: list[str]) -> None:
    known = {"--help", "--json"}
    for name, parameter in inspect.signature(function).parameters.items():
        option = "--" + name.replace("_", "-")
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            known |= {option, option.replace("--", "--no-", 1)}
    for argument in arguments:
        option = argument.partition("=")[0].replace("_", "-")
        if option.startswith("--") and option != "--" and option not in known:
            options = sorted(name for name in known if not name.startswith("--no-"))
            raise UsageError(f"convarium {verb} has no option {option}; {nearest(option, options)}")


def _with_json(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the same signature and ``json``, that returns the call yet to be made."""
    from typing import Annotated, get_type_hints

    import tyro

    hints = get_type_hints(function)
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            hint = Annotated[hint, tyro.conf.arg(metavar=parameter.name.upper())]
        parameters.append(parameter.replace(annotation=hint))
    as_json = Annotated[bool, tyro.conf.arg(help="print one JSON document on stdout")]
    parameters.append(inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=as_json))

    def command(*args: Any, json: bool, **kwargs: Any) -> Callable[[], tuple[Any, bool]]:
        return lambda: (function(*args, **kwargs), json)

    command.__doc__ = function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _one_line(boxed: str) -> str:
    """The first paragraph of the parser's framed message."""
    lines = [line.strip("│╭╮╰╯ ") for line in boxed.splitlines()]
    text = []
    for line in lines[1:]:
        if line and not set(line) - {"─"}:
            break
        text.append(line)
    return " ".join(" ".join(text).split()).removesuffix(".") or boxed.strip()


if __name__ == "__main__":
    sys.exit(main())
