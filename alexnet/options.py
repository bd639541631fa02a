"""Options of the command line: a parser that complains in one line, and the types of arguments."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from alexnet.files import lines


class Parser(argparse.ArgumentParser):
    """One that complains in one line, as the rest of the program does, and shows defaults."""

    def option(self, name: str, help: str, **settings: Any) -> None:
        """Add an argument. The first choice is the default, unless another is given.

        Args:
            name: With its dashes.
            help: One line.
            settings: Further arguments of `add_argument`.
        """
        if "choices" in settings:
            settings.setdefault("default", settings["choices"][0])
        if settings.get("default") is not None:
            help += " (default: %(default)s)"
        self.add_argument(name, help=help, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def between(kind: Callable[[str], float], least: float, most: float, what: str) -> Any:
    """The type of an option that takes numbers of a range.

    Args:
        kind: From text to number: int or float.
        least: The smallest that is allowed.
        most: The largest.
        what: The range in words, for the message.
    """

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not {what}")
        return value

    return read


SEED = between(int, 0, 2**62, f"a whole number from 0 to {2**62}")
COUNT = between(int, 1, 2**31 - 1, f"a whole number from 1 to {2**31 - 1}")
POSITIVE = between(float, math.ulp(0), 1e12, "a positive number of at most 1e12")


def classes(text: str) -> int | list[str]:
    if text.isdecimal():
        return COUNT(text)
    if not text.startswith("@"):
        return [name for name in text.split(",") if name]
    try:
        return lines(Path(text[1:]))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text[1:]}: {error.strerror}") from None
