"""How a run stops when it is asked to: between two steps, with a checkpoint."""


class Interrupted(KeyboardInterrupt):
    """A run that a signal asked to stop and that did, with a checkpoint.

    Args:
        number: The signal's, which becomes the attribute `signal`.
    """

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number

    def __reduce__(self) -> tuple:  # on its way from a worker
        return Interrupted, (self.signal, str(self))
