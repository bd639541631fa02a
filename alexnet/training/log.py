"""A run's log: one JSON object a line in `log.jsonl`, and nothing twice after a resume.

Where the package `tensorboard` is installed, TensorBoard gets the same numbers.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from alexnet.files import write_whole
from alexnet.training.checkpoint import writing


class Log:
    """A log that is being written. Rows are {"kind": "step" | "epoch", "step": ..., ...}.

    Args:
        folder: The run's.
        start: The step to go on from; rows of later steps, of a run that was killed, are removed.
    """

    def __init__(self, folder: Path, start: int = 0):
        self.path = folder / "log.jsonl"
        kept = [row for row in read(folder) if row["step"] <= start] if self.path.exists() else []
        with writing(folder):
            write_whole(self.path, "".join(json.dumps(row) + "\n" for row in kept))
            self.file = self.path.open("a")
            self.outputs: list[Any] = [self.file]
            with suppress(ImportError):
                from torch.utils.tensorboard import SummaryWriter

                board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
                self.outputs.append(board)

    def add(self, kind: str, step: int, **values: float | int | str | None) -> None:
        """Add a row to the log, and to TensorBoard where that is installed.

        Args:
            kind: "step" or "epoch".
            step: Steps done, from 1.
            values: What the row holds besides.

        Raises:
            OSError: The disk is full; the message says the remedy.
        """
        with writing(self.path.parent):
            self.file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            for board in self.outputs[1:]:
                from tensorboard.compat.proto.summary_pb2 import Summary

                numbers = [item for item in values.items() if isinstance(item[1], int | float)]
                scalars = [Summary.Value(tag=f"{kind}/{n}", simple_value=x) for n, x in numbers]
                # one event for all: add_scalar, one for each, takes five times as long
                board.file_writer.add_summary(Summary(value=scalars), step)

    def flush(self) -> None:
        with writing(self.path.parent):
            for output in self.outputs:
                output.flush()

    def close(self) -> None:
        with writing(self.path.parent):
            for output in self.outputs:
                output.close()


def read(folder: str | Path, kind: str | None = None) -> Iterator[dict]:
    """The rows of a run's log, of one kind or of all. Lines that are no rows are skipped, such as
    a last line cut short by a kill.

    Args:
        folder: The run's.
        kind: "step" or "epoch"; None: all rows.

    Raises:
        OSError: There is no log.
    """
    text = (Path(folder) / "log.jsonl").read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        is_row = isinstance(row, dict) and isinstance(row.get("step"), int) and "kind" in row
        if is_row and kind in (None, row["kind"]):
            yield row


def losses(folder: Path) -> list[float]:
    """A run's training loss, step by step, in nats."""
    return [row["loss"] for row in read(folder, "step")]


def means(values: list[float], window: int) -> list[float]:
    """Means over consecutive windows of steps; a last, incomplete window is left out.

    Args:
        values: One for each step.
        window: Steps of a mean.
    """
    starts = range(0, len(values) - window + 1, window)
    return [sum(values[start : start + window]) / window for start in starts]
