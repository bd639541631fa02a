"""A run's log: one JSON object a line in `log.jsonl`, the same numbers for TensorBoard, and nothing twice after a resume."""

import json
from collections.abc import Iterator
from pathlib import Path

from alexnet.training.checkpoint import writing

try:  # the extra `tensorboard`; without it log.jsonl alone is written
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter

    HAS_TENSORBOARD = True
except ModuleNotFoundError:
    HAS_TENSORBOARD = False


class Log:
    """Rows are {"kind": "step" | "epoch", "step": ..., ...}. Rows later than `start` (a resumed run's checkpoint) are taken away before new
    ones are added."""

    def __init__(self, folder: Path, start: int = 0):
        self.path = folder / "log.jsonl"
        kept = [row for row in read(folder) if row["step"] <= start] if self.path.exists() else []
        with writing(self.path.parent):
            part = self.path.with_suffix(".part")
            part.write_text("".join(json.dumps(row) + "\n" for row in kept))
            part.rename(self.path)
            self.file = self.path.open("a")
            board = str(folder / "tensorboard")
            self.board = SummaryWriter(board, purge_step=start + 1) if HAS_TENSORBOARD else None

    def add(self, kind: str, step: int, **values: float | int | str | None) -> None:
        with writing(self.path.parent):
            self.file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            if self.board is None:
                return
            scalars = {
                f"{kind}/{name}": value
                for name, value in values.items()
                if isinstance(value, int | float)
            }
            assert self.board.file_writer is not None
            self.board.file_writer.add_summary(  # one event for all: add_scalar, one for each, takes five times as long
                Summary(
                    value=[
                        Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()
                    ]
                ),
                step,
            )

    def flush(self) -> None:
        with writing(self.path.parent):
            self.file.flush()
            if self.board is not None:
                self.board.flush()

    def close(self) -> None:
        with writing(self.path.parent):
            self.file.close()
            if self.board is not None:
                self.board.close()


def read(folder: Path, kind: str | None = None) -> Iterator[dict]:
    """The rows of a run's log; what is no row is passed over, as a last line cut short by a kill."""
    for line in (folder / "log.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if (
            isinstance(row, dict)
            and isinstance(row.get("step"), int)
            and "kind" in row
            and kind in (None, row["kind"])
        ):
            yield row


def losses(folder: Path) -> list[float]:
    """A run's training loss, step by step, in nats."""
    return [row["loss"] for row in read(folder, "step")]


def means(values: list[float], window: int) -> list[float]:
    """Means over consecutive windows of steps; what is left over at the end belongs to none."""
    return [
        sum(values[i : i + window]) / window for i in range(0, len(values) - window + 1, window)
    ]
