"""The errors a user can meet, each with the exit code of the command line.

An error says in one line what was asked, what was received, the nearest valid choice and what to do.
"""

import difflib
from collections.abc import Iterable


class ConvariumError(Exception):
    """A run failed (exit code 1). Base of every error this package raises on purpose."""

    exit_code = 1


class UsageError(ConvariumError, ValueError):
    """A request that cannot be met as it stands: a name, an option, a size (exit code 2)."""

    exit_code = 2


class DataError(ConvariumError, ValueError):
    """Data, weights or a folder that cannot be used (exit code 3)."""

    exit_code = 3


class GateError(ConvariumError):
    """A check on the result failed: parity or accuracy (exit code 4)."""

    exit_code = 4


class Diverged(ConvariumError):
    """A loss or a gradient became infinite or no number (exit code 1)."""


class Interrupted(ConvariumError):
    """Stopped by Ctrl-C after a checkpoint was written (exit code 130)."""

    exit_code = 130


class Terminated(Interrupted):
    """Stopped by SIGTERM after a checkpoint was written (exit code 143)."""

    exit_code = 143


def nearest(name: str, names: Iterable[str], count: int = 3) -> str:
    """The closest valid names as the end of a sentence, or all of them when nothing is close."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if close:
        return f"nearest: {', '.join(close)}"
    shown = ", ".join(names[:12])
    return f"choices: {shown}{', ...' if len(names) > 12 else ''}"


def check_choice(option: str, value: str, choices: Iterable[str]) -> None:
    """Raise a :class:`UsageError` unless ``value`` is one of ``choices``."""
    choices = list(choices)
    if value not in choices:
        raise UsageError(f"{option} must be one of {', '.join(choices)}; got {value!r}")


def require(module: str, extra: str) -> None:
    """Raise a :class:`UsageError` that names the extra to install when ``module`` is missing."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise UsageError(f"this needs the package {module!r}: pip install 'convarium[{extra}]'")
