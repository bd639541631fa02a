"""The exceptions that mean "your input is at fault".

The command line prints their message as one line and exits with status 2.
"""

import importlib
from types import ModuleType


class InputError(ValueError):
    """Bad input from outside: a path, a file, a profile, an option. The message names the thing and
    the remedy, in one line."""


class SharedError(InputError):
    """An InputError that all ranks of a run raise alike. Rank 0 prints it."""


def require(fits: object, problem: str) -> None:
    """Raise InputError(problem) where something does not fit."""
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
