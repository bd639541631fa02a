"""Checkpoints: whole or not at all, the last two kept, damage named with its remedy."""

import hashlib
import itertools
import json
import os
import pickle
import shutil
import threading

import pytest
import torch

from alexnet.errors import InputError
from alexnet.training import checkpoint

COLUMNS = {
    str(n): {
        "conv1.weight": torch.randn(4, 3, 2, 2),
        "velocity.conv1.weight": torch.randn(4, 3, 2, 2),
    }
    for n in (0, 1)
}
ATTEMPTS = itertools.count()
STATE = {"step": 7, "loss_sum": 0.1 + 0.2, "schedule": {"best": None}}


def save(folder, step, columns, state):
    """Write a checkpoint at once. Returns its folder."""
    writer = checkpoint.Writer(folder, columns.keys(), f"attempt-{next(ATTEMPTS)}")
    writer.save(step, columns, state)
    writer.wait()
    return folder / f"step-{step:09d}"


@pytest.fixture
def saved(tmp_path):
    return save(tmp_path, 7, COLUMNS, STATE)


def test_what_is_saved_comes_back_to_the_bit(saved):
    columns, state = checkpoint.load(saved)
    assert state == STATE
    assert columns.keys() == COLUMNS.keys()
    assert all(
        torch.equal(columns[n][name], value)
        for n, column in COLUMNS.items()
        for name, value in column.items()
    )


def test_a_checkpoint_is_one_file_a_column_and_a_manifest_of_all(saved):
    names = {path.name for path in saved.iterdir()}
    assert names == {"column-0.safetensors", "column-1.safetensors", "state.json", "manifest.json"}
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["step"] == 7 and manifest["sha256"] == {
        name: hashlib.sha256((saved / name).read_bytes()).hexdigest()
        for name in names - {"manifest.json"}
    }


def test_the_last_two_are_kept_in_order_and_leftovers_swept(tmp_path):
    (tmp_path / ".step-000000003.4711").mkdir()
    (tmp_path / ".step-000000003.4711" / "column-0.safetensors").write_bytes(b"half")
    for step in (5, 90, 1000):
        save(tmp_path, step, COLUMNS, STATE)
    kept = ["step-000000090", "step-000001000"]
    assert (
        [path.name for path in checkpoint.steps(tmp_path)]
        == kept
        == sorted(path.name for path in tmp_path.iterdir())
    )
    assert checkpoint.steps(tmp_path / "nowhere") == []


def test_one_that_is_there_is_not_written_again(saved, tmp_path):
    before = {path.name: path.stat().st_mtime_ns for path in saved.iterdir()}
    assert save(tmp_path, 7, COLUMNS, STATE) == saved
    assert {path.name: path.stat().st_mtime_ns for path in saved.iterdir()} == before


@pytest.mark.parametrize("where", ["save_file", "file_digest"])
def test_a_failure_half_way_leaves_the_one_before_untouched(saved, tmp_path, monkeypatch, where):
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError("no space left on device")
        return real(*arguments)

    real = getattr(checkpoint, where)
    monkeypatch.setattr(checkpoint, where, fail)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path, 8, COLUMNS, STATE)
    monkeypatch.undo()
    assert checkpoint.steps(tmp_path) == [saved]
    assert checkpoint.load(saved)[1] == STATE
    assert checkpoint.load(save(tmp_path, 8, COLUMNS, STATE))[1] == STATE


@pytest.mark.parametrize("name", ["column-0.safetensors", "column-1.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty"])
def test_damage_is_named_with_its_remedy(saved, name, damage):
    file = saved / name
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "flipped":
        middle = len(data) // 2
        file.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    else:
        file.write_bytes(data[:-1] if damage == "cut" else b"")
    with pytest.raises(
        InputError,
        match=f"{name} is missing or damaged; remove {saved} to go on from the checkpoint before",
    ) as told:
        checkpoint.load(saved)
    assert "\n" not in str(told.value)


NO_MANIFESTS = [
    None,
    "",
    '{"step": 7, "sha2',
    "[]",
    "7",
    '{"step": 7}',
    '{"sha256": {}}',
    '{"sha256": []}',
    '{"sha256": "x"}',
    "\udcff",
]


@pytest.mark.parametrize("text", NO_MANIFESTS)
def test_a_damaged_manifest_is_named_with_its_remedy(saved, text):
    if text is None:
        (saved / "manifest.json").unlink()
    else:
        (saved / "manifest.json").write_text(text, errors="surrogateescape")
    with pytest.raises(
        InputError,
        match=f"manifest.json is missing or damaged; remove {saved} to go on from the checkpoint",
    ):
        checkpoint.load(saved)


def test_a_half_removed_old_checkpoint_does_not_matter(tmp_path):
    first = save(tmp_path, 1, COLUMNS, STATE)
    save(tmp_path, 2, COLUMNS, STATE)
    (first / "manifest.json").unlink()  # a kill while the oldest was being removed
    save(tmp_path, 3, COLUMNS, STATE)
    assert [path.name for path in checkpoint.steps(tmp_path)] == [
        "step-000000002",
        "step-000000003",
    ]
    shutil.rmtree(tmp_path / "step-000000003")
    assert checkpoint.load(checkpoint.steps(tmp_path)[-1])[1] == STATE


# --- hostile ones ---


def forge(saved, name, data):
    """Puts other bytes into a checkpoint, with a manifest that vouches for them."""
    (saved / name).write_bytes(data)
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
    (saved / "manifest.json").write_text(json.dumps(manifest))


STRANGE = [
    "../secret",
    "/etc/hostname",
    "column-0.pt",
    "column-.safetensors",
    "state.json/x",
    "column-0.safetensors\n",
]


@pytest.mark.parametrize("name", STRANGE)
def test_a_manifest_that_names_anything_else_is_refused(saved, name):
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["sha256"][name] = "0" * 64
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="which no checkpoint holds; remove"):
        checkpoint.load(saved)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("name", ["column-0.safetensors", "state.json"])
def test_a_pickle_in_disguise_is_refused_and_not_executed(saved, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    forge(saved, name, pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=f"{name} is not what a checkpoint holds"):
        checkpoint.load(saved)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("data", [b"[]", b"7", b"null", b'"x"'])
def test_a_state_that_is_no_table_is_refused(saved, data):
    forge(saved, "state.json", data)
    with pytest.raises(InputError, match=r"state.json is not what a checkpoint holds"):
        checkpoint.load(saved)


def test_one_column_alone_can_be_read_and_a_missing_one_is_named(saved):
    columns, state = checkpoint.load(saved, ["1"])
    assert columns.keys() == {"1"} and state == STATE
    with pytest.raises(InputError, match=r"column-2.safetensors is missing or damaged"):
        checkpoint.load(saved, ["2"])


# --- while training goes on ---


def test_saving_returns_before_the_bytes_are_written_and_keeps_what_they_were(
    tmp_path, monkeypatch
):
    gate, real = threading.Event(), checkpoint.save_file
    monkeypatch.setattr(checkpoint, "save_file", lambda *given: (gate.wait(10), real(*given)))
    writer = checkpoint.Writer(tmp_path, ["0"], "word")
    weights = {"0": {"conv1.weight": torch.zeros(3)}}
    writer.save(1, weights, STATE)
    weights["0"]["conv1.weight"].fill_(7)  # the next step
    assert checkpoint.steps(tmp_path) == []
    gate.set()
    writer.wait()
    assert torch.equal(
        checkpoint.load(tmp_path / "step-000000001")[0]["0"]["conv1.weight"], torch.zeros(3)
    )


def test_two_processes_write_one_checkpoint_which_is_there_when_both_are_done(tmp_path):
    first, second = (
        checkpoint.Writer(tmp_path, ["0", "1"], "word", first=mine) for mine in (True, False)
    )
    first.save(7, {"0": COLUMNS["0"]}, STATE)
    assert not first.failed(wait=True) and checkpoint.steps(tmp_path) == []
    second.save(7, {"1": COLUMNS["1"]}, STATE)
    second.wait()
    first.wait()
    columns, state = checkpoint.load(tmp_path / "step-000000007")
    assert state == STATE and torch.equal(
        columns["1"]["conv1.weight"], COLUMNS["1"]["conv1.weight"]
    )


def test_a_part_that_is_not_written_leaves_no_checkpoint_and_nobody_waiting(tmp_path, monkeypatch):
    first, second = (
        checkpoint.Writer(tmp_path, ["0", "1"], "word", first=mine) for mine in (True, False)
    )
    save(tmp_path, 3, COLUMNS, STATE)
    first.save(7, {"0": COLUMNS["0"]}, STATE)

    def full(*_):
        raise OSError(28, "No space left on device")

    assert not first.failed(wait=True)
    monkeypatch.setattr(checkpoint, "save_file", full)
    second.save(7, {"1": COLUMNS["1"]}, STATE)
    assert second.failed(wait=True)
    kept = "step-000000003 is kept: make room, and --resume goes on from there"
    with pytest.raises(OSError, match=f"No space left on device; {kept}"):
        second.wait()
    first.give_up()
    first.wait()
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-000000003"]
