"""The exceptions that mean "your input is at fault".

The command line prints their message as one line and exits with status 2.
"""

import errno
import importlib
import os
import re
import sys
from types import ModuleType


class InputError(ValueError):
    """Bad input from outside: a path, a file, a profile, an option. The message names the thing and
    the remedy, in one line."""


class SharedError(InputError):
    """An InputError that all ranks of a run raise alike. Rank 0 prints it."""


class EnvironmentFault(InputError):
    """The machine, a disk or a network failed: nothing in the input is to blame, and the same call
    goes on when they are well again."""


def is_environments(error: BaseException) -> bool:
    """Whether an error is the machine's, a disk's or a network's: memory that ran out, or a system
    call that failed. An OSError of a decoder names no file, and has no number, or that of a place
    outside the file."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno != errno.EINVAL or error.filename is not None
    return isinstance(error, MemoryError | EnvironmentFault)


def reason(error: BaseException) -> str:
    """An error in words, on one line."""
    if isinstance(error, MemoryError):
        return os.strerror(errno.ENOMEM)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


def printable(text: str) -> str:
    """A text on one line that no terminal takes for a command: names of files hold anything."""
    return re.sub(
        r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]",
        "?",
        " ".join(text.splitlines()),
    )


def say(note: str) -> None:
    """Print a note to the user, where it does not get into the way of a command's output."""
    print(printable(note), file=sys.stderr)


def require(fits: object, problem: str) -> None:
    """Raise InputError(problem) where something does not fit.

    Args:
        fits: Anything; taken as true or false.
        problem: One line that names the thing and the remedy.
    """
    if not fits:
        raise InputError(problem)


def needs(module: str, *, extra: str, what: str) -> ModuleType:
    """Import a module that the base installation does not bring.

    Args:
        module: Its name, as in an import statement; or one of our own that imports such a module.
        extra: The extra of this package that brings it.
        what: What needs it, as the subject of a sentence: "drawing".

    Raises:
        InputError: It is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "alexnet").startswith("alexnet"):
            raise
        package = f"alexnet-reproduced[{extra}]"
        raise InputError(f"{what} needs {error.name}: pip install '{package}'") from None
