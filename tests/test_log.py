"""A run's log: rows as written, nothing twice after a resume, lines that are no rows skipped."""

import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from alexnet.training.log import Log, read


def fill(folder, begin, end, start):
    folder.mkdir(exist_ok=True)
    log = Log(folder, start)
    for step in range(begin, end + 1):
        log.add("step", step, loss=1 / step, error=0.5)
        if step % 5 == 0:
            log.add("epoch", step, epoch=step / 5, loss=float(step), note="text")
    log.close()


def test_rows_come_back_as_written(tmp_path):
    fill(tmp_path, 1, 5, 0)
    rows = list(read(tmp_path))
    assert rows[:5] == [
        {"kind": "step", "step": step, "loss": 1 / step, "error": 0.5} for step in range(1, 6)
    ]
    assert (
        list(read(tmp_path, "epoch"))
        == [rows[5]]
        == [{"kind": "epoch", "step": 5, "epoch": 1.0, "loss": 5.0, "note": "text"}]
    )
    assert list(read(tmp_path, "step")) == rows[:5]


def test_a_resumed_log_has_nothing_twice_and_nothing_missing(tmp_path):
    fill(tmp_path / "straight", 1, 12, 0)
    fill(tmp_path / "resumed", 1, 9, 0)
    fill(
        tmp_path / "resumed", 6, 12, 5
    )  # the checkpoint was of step 5, which the end of an epoch belongs to
    assert (tmp_path / "resumed" / "log.jsonl").read_text() == (
        tmp_path / "straight" / "log.jsonl"
    ).read_text()


def test_a_resume_from_the_beginning_forgets_all(tmp_path):
    fill(tmp_path, 1, 4, 0)
    fill(tmp_path, 1, 2, 0)
    assert [row["step"] for row in read(tmp_path)] == [1, 2]


def test_a_line_cut_short_is_passed_over_and_then_replaced(tmp_path):
    fill(tmp_path, 1, 4, 0)
    whole = (tmp_path / "log.jsonl").read_text()
    (tmp_path / "log.jsonl").write_text(whole[:-12])
    assert [row["step"] for row in read(tmp_path)] == [1, 2, 3]
    fill(tmp_path, 4, 4, 3)
    assert (tmp_path / "log.jsonl").read_text() == whole


def test_what_is_no_row_is_passed_over(tmp_path):
    fill(tmp_path, 1, 2, 0)
    whole = (tmp_path / "log.jsonl").read_bytes()
    strange = [
        b"[]",
        b"7",
        b"\xff\xfe",
        b'{"kind": "step"}',
        b'{"step": 1}',
        b'{"kind": "step", "step": "1"}',
    ]
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(strange) + b"\n" + whole)
    fill(tmp_path, 3, 2, 2)
    assert (tmp_path / "log.jsonl").read_bytes() == whole


def test_tensorboard_shows_the_same_numbers_once(tmp_path):
    fill(tmp_path, 1, 9, 0)
    fill(tmp_path, 6, 12, 5)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(board.Tags()["scalars"]) == {"step/loss", "step/error", "epoch/epoch", "epoch/loss"}
    assert [event.step for event in board.Scalars("step/loss")] == list(range(1, 13))
    assert abs(board.Scalars("step/loss")[6].value - 1 / 7) < 1e-6


def test_without_tensorboard_there_is_the_log_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # its import fails
    fill(tmp_path, 1, 5, 0)
    assert len(list(read(tmp_path))) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
