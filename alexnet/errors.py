"""The one exception that means "your input is at fault"; the command line prints its message as one line and exits with 2."""


class InputError(ValueError):
    """Bad input from outside: a path, a file, a profile, an option. The message names the thing and the remedy, in one line."""


class SharedError(InputError):
    """One that all ranks of a run raise alike. Rank 0 tells it."""
