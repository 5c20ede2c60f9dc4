"""The command line: every verb is a function of the library with the same arguments.

``--help``, ``list`` and ``tree`` answer before anything heavy is imported. A verb's positional arguments are its
function's positional-only ones; its function returns a result that can ``render()`` for people and ``as_dict()`` for
programs.
"""

from __future__ import annotations

import errno
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from convarium import __version__
from convarium.errors import ConvariumError, Interrupted, Terminated, UsageError, nearest

# verb -> (where its function is, what it does), in the order of a classifier's life.
VERBS: dict[str, tuple[str, str]] = {
    "list": ("convarium.lineage.listing:list_networks", "the networks of the catalogue"),
    "tree": ("convarium.lineage.tree:tree", "who descends from whom, and what each step bought"),
    "describe": ("convarium.anatomy.describe:describe", "what a network is made of and what it costs"),
    "diff": ("convarium.lineage.diff:diff", "what changed between two networks or runs"),
    "claims": ("convarium.claims.claims:claims", "which published numbers are true"),
    "compare": ("convarium.lineage.compare:compare", "accuracy against cost, as published and of your runs"),
    "weights list": ("convarium.exchange.cards:list_cards", "the public weights that are known"),
    "weights show": ("convarium.exchange.cards:show", "what one of them is: preprocessing, classes, licence, errors"),
    "weights fetch": ("convarium.exchange.cards:fetch", "fetch its file, held to its hash"),
    "weights identify": ("convarium.exchange.identify:identify", "which network a file of weights belongs to"),
    "weights convert": ("convarium.exchange.convert:convert", "a file of another library's to a run, or a run to one"),
    "train": ("convarium.training.train:train", "train a network on images"),
    "race": ("convarium.race.race:race", "which network to use for your images"),
    "evaluate": ("convarium.evaluation.evaluate:evaluate", "judge a trained run on a data set"),
    "benchmark": ("convarium.speed.benchmark:benchmark", "how fast networks are on this machine"),
    "explain": ("convarium.explanation.explain:explain", "draw what a trained run looks at"),
    "compress": ("convarium.compression.compress:compress", "as small and quick as a budget of errors allows"),
    "export": ("convarium.deploy.export:export", "write a run as one file that runs without this project"),
    "predict": ("convarium.deploy.predict:predict", "name what is in an image"),
    "demo": ("convarium.demo:demo", "all of it, on handwritten digits, in three minutes"),
}

AT_ONCE = {"list", "tree"}  # verbs of the facts alone


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 usage, 3 bad data, 4 a gate, 130/143 stopped."""
    before = (
        signal.signal(signal.SIGTERM, _terminate) if threading.current_thread() is threading.main_thread() else None
    )
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return code
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except ConvariumError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone (convarium list | head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename:
            raise
        print(f"error: cannot write the result: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _terminate(_number: int, _frame: Any) -> None:
    raise Terminated("stopped")


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    verb, rest = arguments[0], arguments[1:]
    if rest and f"{verb} {rest[0]}" in VERBS:
        verb, rest = f"{verb} {rest[0]}", rest[1:]
    if verb == "--version":
        print(f"convarium {__version__}")
        return 0
    if verb not in VERBS:
        if rest and any(known.startswith(f"{verb} ") for known in VERBS):
            verb = f"{verb} {rest[0]}"
        raise UsageError(f"no command {verb!r}; {nearest(verb, VERBS)} (convarium --help)")
    module, name = VERBS[verb][0].split(":")
    function = getattr(import_module(module), name)
    result, as_json = (_parse_plainly if verb in AT_ONCE else _parse)(verb, function, rest)
    if as_json:
        import json

        print(json.dumps(result.as_dict(), indent=2, default=str))
    else:
        from convarium.console import stdout

        stdout().print(result.render())
    return getattr(result, "exit_code", 0)  # of a result that is not whole, such as a job with unreadable images


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


def _parse_plainly(verb: str, function: Callable[..., Any], arguments: list[str]) -> tuple[Any, bool]:
    """As :func:`_parse`, by the standard library's parser, for verbs of few words that are to answer at once."""
    import argparse

    help = _argument_help(function)
    parser = argparse.ArgumentParser(f"convarium {verb}", description=VERBS[verb][1], exit_on_error=False)
    parameters = inspect.signature(function).parameters
    for name, parameter in parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            parser.add_argument(f"--{name}", default=parameter.default, help=help[name])
        else:
            count = "?" if isinstance(parameter.default, str) else "*"
            parser.add_argument(name, nargs=count, default=parameter.default, metavar=name.upper(), help=help[name])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    try:
        parsed, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UsageError(f"{error} (convarium {verb} --help)") from None
    if unknown:
        taken = parser.format_usage().split(verb, 1)[1].replace("[-h] ", "")
        raise UsageError(f"convarium {verb} takes {' '.join(taken.split())}; got {unknown[0]!r}")
    given = vars(parsed)
    positional = [given[name] for name, p in parameters.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    options = {name: given[name] for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    return function(*positional, **options), parsed.json


def _argument_help(function: Callable[..., Any]) -> dict[str, str]:
    """The lines of a docstring's ``Args:`` by name."""
    section = (inspect.getdoc(function) or "").partition("Args:\n")[2].partition("\n\n")[0]
    return dict(line.strip().split(": ", 1) for line in section.splitlines())


def _parse(verb: str, function: Callable[..., Any], arguments: list[str]) -> tuple[Any, bool]:
    """Call ``function`` with the parsed arguments; returns its result, and whether ``--json`` was given."""
    import contextlib
    import io

    import tyro

    _check_options(verb, function, arguments)
    command = _command(function, arguments)
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


def _command(function: Callable[..., Any], arguments: list[str]) -> Callable[..., Any]:
    """``function`` with ``json`` beside its arguments, returning the call yet to be made.

    An option that is ``None`` unless given is shown to the parser only when it is given, and then without the
    ``None``: so that nobody reads or types one.
    """
    from typing import Annotated, get_type_hints

    import tyro

    hints = get_type_hints(function)
    given = {argument.partition("=")[0].replace("_", "-") for argument in arguments}
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint, option = hints[name], "--" + name.replace("_", "-")
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            hint = Annotated[hint, tyro.conf.arg(metavar=name.upper())]
        elif parameter.default is None:
            hint = _without_none(hint)
            if hint is bool and given & {option, option.replace("--", "--no-", 1), "--help", "-h"}:
                hint = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]
                parameter = parameter.replace(default=False)
            elif option in given:
                parameter = parameter.replace(default=inspect.Parameter.empty)
            elif given & {"--help", "-h"}:
                hint = Annotated[hints[name], tyro.conf.arg(metavar=_type_name(hint), help_behavior_hint="")]
            else:
                continue
        parameters.append(parameter.replace(annotation=hint))
    as_json = Annotated[bool, tyro.conf.arg(help="print one JSON document on stdout"), tyro.conf.FlagCreatePairsOff]
    parameters.append(inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=as_json))

    def command(*args: Any, json: bool, **kwargs: Any) -> Callable[[], tuple[Any, bool]]:
        return lambda: (function(*args, **kwargs), json)

    command.__doc__ = (inspect.getdoc(function) or "").partition("\nRaises:")[0]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _without_none(hint: Any) -> Any:
    from functools import reduce
    from operator import or_
    from typing import get_args

    kept = [part for part in get_args(hint) if part is not type(None)]
    return reduce(or_, kept) if len(kept) < len(get_args(hint)) else hint


def _type_name(hint: Any) -> str:
    from typing import Literal, get_args, get_origin

    if get_origin(hint) is Literal:
        return "{" + ",".join(get_args(hint)) + "}"
    return getattr(hint, "__name__", "VALUE").upper() if isinstance(hint, type) else "VALUE"


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
