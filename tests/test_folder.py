"""A run's folder: what is in it, what it refuses, and how runs begin with another's weights."""

import fcntl
import json
import os
import pickle
import re
import resource
import shutil
import signal
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import alexnet
from alexnet.errors import InputError
from alexnet.training import Interrupted, check_usable, load_run, log, starting_point, train
from alexnet.training.folder import WEIGHTS, check_like_trained
from tests.runs import configure, same, small, weights

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_leaves_what_the_layout_says(splits, straight):
    assert {path.name for path in straight.iterdir()} == {
        "config.json", "log.jsonl", "checkpoints", "weights.safetensors", "summary.json",
        "mean.npy", "classes.json", "names.json", "tensorboard", "lock"
    }  # fmt: skip
    config = configure(splits)
    assert json.loads((straight / "config.json").read_text()) == asdict(config)
    steps, epochs = list(log.read(straight, "step")), list(log.read(straight, "epoch"))
    assert [row["step"] for row in steps] == list(range(1, 16)) and [
        row["step"] for row in epochs
    ] == [5, 10, 15]
    sizes = [8, 8, 8, 8, 4]  # of the batches of 36 images
    for epoch, row in enumerate(epochs):
        part = steps[5 * epoch : 5 * epoch + 5]
        assert row["loss"] == pytest.approx(
            sum(s["loss"] * n for s, n in zip(part, sizes, strict=True)) / 36
        )
        assert row["error"] == pytest.approx(
            sum(s["error"] * n for s, n in zip(part, sizes, strict=True)) / 36
        )
        assert 0 <= row["val_top1"] <= 1 and row["val_nll"] > 0
    summary = json.loads((straight / "summary.json").read_text())
    assert (summary["steps"], summary["epochs"], summary["ended"], summary["diverged_at"]) == (
        15,
        3.0,
        "budget",
        None,
    )
    merged = config.network().export_merged()
    assert {k: v.shape for k, v in load_file(straight / "weights.safetensors").items()} == {
        k: v.shape for k, v in merged.items()
    }


def test_others_may_read_what_a_run_wrote(straight):
    """As the umask says; safetensors alone would write what only its owner may read."""
    file = straight / "written"
    file.touch()
    mode = file.stat().st_mode
    file.unlink()
    written = [straight / WEIGHTS, *straight.glob("checkpoints/*/*"), straight / "mean.npy"]
    assert len(written) > 8 and {path.stat().st_mode for path in written} == {mode}


def test_a_run_may_start_with_anothers_weights_in_all_layers_but_the_last(splits32, tmp_path):
    first = replace(small(splits32, epochs=1.0), num_classes=9)
    train(first, splits32, tmp_path / "first", progress=False)
    config = small(
        splits32, epochs=1 / 5, rate=1e-12, seed=5, start=starting_point(tmp_path / "first")
    )
    train(config, splits32, tmp_path / "run", start=tmp_path / "first", progress=False)
    before, after, fresh = (
        load_file(tmp_path / "first" / WEIGHTS),
        load_file(tmp_path / "run" / WEIGHTS),
        config.network().export_merged(),
    )
    assert before["fc4.bias"].shape == (9,) and after["fc4.bias"].shape == (4,)
    for name, value in after.items():
        torch.testing.assert_close(
            value, (fresh if name.startswith("fc4") else before)[name], rtol=0, atol=1e-7
        )
    assert not torch.equal(before["conv1.weight"], fresh["conv1.weight"])
    assert json.loads((tmp_path / "run" / "config.json").read_text())["start"] == config.start
    net, _, again = load_run(tmp_path / "run")
    assert again == config and torch.equal(
        net.export_merged()["conv2.weight"], after["conv2.weight"]
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frozen_layers_keep_the_weights_they_begin_with(splits32, tmp_path, precision):
    train(small(splits32, epochs=1 / 5), splits32, tmp_path / "first", progress=False)
    start = starting_point(tmp_path / "first")
    settings = {"epochs": 2.0, "seed": 5, "start": start, "precision": precision}
    config = small(splits32, frozen="conv1,conv2", **settings)
    train(config, splits32, tmp_path / "run", start=tmp_path / "first", progress=False)
    before, after = (load_file(tmp_path / run / WEIGHTS) for run in ("first", "run"))
    for name, value in after.items():
        assert torch.equal(value, before[name]) == name.startswith(("conv1", "conv2")), name
    assert load_run(tmp_path / "run")[2] == config
    # and the run is found again, as finished
    train(config, splits32, tmp_path / "run", resume=True, progress=False)


@pytest.mark.parametrize(
    ("frozen", "said"),
    [
        ("conv9", "no layer 'conv9' to freeze; it has conv1, conv2, conv3, fc4"),
        ("conv1,conv2,conv3,fc4", "all layers are frozen"),
    ],
)
def test_layers_that_cannot_be_frozen_are_named(splits32, tmp_path, frozen, said):
    with pytest.raises(InputError, match=said):
        train(small(splits32, frozen=frozen), splits32, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_without_the_run_it_started_from(splits32, tmp_path):
    train(small(splits32), splits32, tmp_path / "first", progress=False)
    config = small(splits32, start=starting_point(tmp_path / "first"), seed=1)
    train(config, splits32, tmp_path / "straight", start=tmp_path / "first", progress=False)

    def interrupt(steps):
        nonlocal taken
        taken += steps
        if taken == 7:
            os.kill(os.getpid(), signal.SIGINT)

    taken = 0
    with pytest.raises(Interrupted):
        train(
            config,
            splits32,
            tmp_path / "run",
            start=tmp_path / "first",
            progress=False,
            on_steps=interrupt,
        )
    shutil.rmtree(tmp_path / "first")
    assert train(config, splits32, tmp_path / "run", resume=True, progress=False)["steps"] == 15
    same(tmp_path / "run", tmp_path / "straight")


def test_weights_that_cannot_be_started_from_are_refused(splits32, tmp_path):
    first = tmp_path / "first"
    train(small(splits32, epochs=1.0), splits32, first, progress=False)
    point = starting_point(first)
    cases = [
        (small(splits32, start=point), None, "that run was not given"),
        (small(splits32), first, "the config names no weights to start from"),
        (
            small(splits32, start="0" * 64),
            first,
            f"weights.safetensors has SHA-256 {point[:16]}.*begins with that of 0000000000000000",
        ),
        (
            small(splits32, start=point, width=1 / 2),
            first,
            r"another net: conv1.weight has shape \(8, 3, 5, 5\); this net needs \(16,",
        ),
        (small(splits32, start=point), tmp_path / "nowhere", "nowhere holds no run"),
    ]
    for config, start, said in cases:
        with pytest.raises(InputError, match=said):
            train(config, splits32, tmp_path / "run", start=start, progress=False)
        assert not (tmp_path / "run").exists()
    (first / "summary.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        starting_point(first)


def test_a_finished_run_is_returned_as_it_is(splits, straight):
    before = {
        path: path.stat().st_mtime_ns
        for path in straight.rglob("*")
        if path.is_file() and path.name != "lock"
    }
    summary = train(configure(splits), splits, straight, resume=True)
    assert summary == json.loads((straight / "summary.json").read_text())
    assert {
        path: path.stat().st_mtime_ns
        for path in straight.rglob("*")
        if path.is_file() and path.name != "lock"
    } == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preset": "source"}, "preset 'paper', not 'source'"),
        ({"seed": 2}, "seed 0, not 2"),
        ({"rate": 0.5}, "rate None, not 0.5"),
        ({"epochs": 4.0}, "epochs 3.0, not 4.0"),
        ({"width": 0.125}, "width 0.0625, not 0.125"),
        ({"data": {"train": "another"}}, "data {.*, not {'train': 'another'}"),
    ],
)
def test_a_run_of_other_options_is_refused_by_name(splits, straight, change, said):
    with pytest.raises(InputError, match=f"holds a run with {said}"):
        train(replace(configure(splits), **change), splits, straight, resume=True)


def test_an_older_run_without_a_later_field_is_still_that_run(splits, straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    stored = json.loads((straight / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(
        json.dumps({k: v for k, v in stored.items() if k != "stop_at_train_error"})
    )
    assert train(configure(splits), splits, tmp_path / "run", resume=True)["steps"] == 15
    (tmp_path / "run" / "config.json").write_text(json.dumps(stored)[:-20])
    with pytest.raises(InputError, match=r"config.json is damaged"):
        train(configure(splits), splits, tmp_path / "run", resume=True)


def test_a_second_process_is_refused(splits32, tmp_path):
    train(small(splits32, epochs=1 / 5), splits32, tmp_path / "run", progress=False)
    with (tmp_path / "run" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is training in"):
            train(small(splits32, epochs=1 / 5), splits32, tmp_path / "run", resume=True)


def test_a_folder_of_other_things_is_refused_and_left_alone(splits32, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("dear")
    for resume in (False, True):
        with pytest.raises(InputError, match="holds something that is no run"):
            train(small(splits32), splits32, tmp_path / "thesis", resume=resume)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
    for place, said in (
        (tmp_path / "thesis" / "chapter.tex", "is a file"),
        (tmp_path / "thesis" / "chapter.tex" / "run", "cannot make"),
    ):
        with pytest.raises(InputError, match=said):
            train(small(splits32), splits32, place)


def test_what_a_kill_at_the_very_beginning_leaves_is_no_obstacle(splits32, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").touch()
    (tmp_path / "run" / ".config.json.4711.part").write_text('{"preset": "fo')
    assert (
        train(small(splits32, epochs=1 / 5), splits32, tmp_path / "run", progress=False)["steps"]
        == 1
    )


@pytest.mark.parametrize(
    ("room", "first"), [(100, "config.json"), (10_000, "mean.npy"), (100_000, "")]
)
def test_a_full_disk_is_named_with_its_remedy(splits32, tmp_path, room, first):
    """As with a disk: no file may grow beyond so many bytes. The last to do so is a log's."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError) as told:
            train(
                small(splits32, epochs=100.0, batch_size=1, rate=1e-6),
                splits32,
                tmp_path / "run",
                progress=False,
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    how = "File too large; make room, and the same command with --resume goes on"
    assert str(told.value) == f"cannot write {tmp_path / 'run' / first}: {how}"


def test_nothing_is_unpickled(splits, straight, monkeypatch, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()

    def refuse(*_, **__):
        raise AssertionError("a pickle was loaded")

    for module, name in (
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
    ):
        monkeypatch.setattr(module, name, refuse)
    train(configure(splits), splits, tmp_path / "run", resume=True, progress=False)
    load_run(tmp_path / "run")
    package = Path(alexnet.__file__).parent
    pickled = re.compile(r"import pickle|torch\.load\(|torch\.save\(|allow_pickle=True")
    holding = [path for path in package.rglob("*.py") if pickled.search(path.read_text())]
    # others' weights may be pickles: read by an unpickler that knows arrays alone, and by torch's
    names = {path.relative_to(package).as_posix(): path.read_text() for path in holding}
    # one writes a pickle to see what a process would have to import
    assert set(names) == {"imports/arrays.py", "processes.py"}
    assert "pickle.load" not in names["processes.py"]
    text = names["imports/arrays.py"]
    assert text.count("weights_only=True") == text.count("torch.load(") == 1
    assert "pickle.load" not in text and "allow_pickle=True" not in text
    np.save(tmp_path / "run" / "mean.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="damaged"):
        load_run(tmp_path / "run")


def test_load_run_names_what_is_wrong(straight, tmp_path):
    with pytest.raises(InputError, match="holds no run; make one"):
        load_run(tmp_path)
    shutil.copytree(straight, tmp_path / "run")
    whole = weights(straight)
    (tmp_path / "run" / "weights.safetensors").write_bytes(whole[:-7])
    with pytest.raises(InputError, match="damaged"):
        load_run(tmp_path / "run")
    (tmp_path / "run" / "weights.safetensors").unlink()
    with pytest.raises(InputError, match=r"weights.safetensors is missing"):
        load_run(tmp_path / "run")


ALMOST = '{"config": {}, "steps": 1, "ended": "?", "epochs": 1, "seconds": 1, "diverged_at": "7"}'


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("summary.json", "{}", "usable"),
        ("summary.json", "[]", "usable"),
        ("summary.json", '{"steps": 3}', "usable"),
        ("summary.json", '{"config": {}, "diverged_at": null}', "usable"),
        ("summary.json", ALMOST, "usable"),
        ("config.json", "[]", "load"),
        ("config.json", "7", "load"),
        ("config.json", '{"preset": "paper"}', "load"),
        ("classes.json", "7", "pack"),
        ("classes.json", "[1, 2, 3]", "pack"),
        ("mean.npy", "", "load"),
        ("weights.safetensors", "others", "load"),
    ],
)
def test_what_is_json_and_no_part_of_a_run_is_damaged(
    splits, straight, tmp_path, name, content, read
):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    _, augment, config = load_run(run)
    if content == "others":
        save_file({"conv1.weight": torch.zeros(3)}, run / name)
    else:
        (run / name).write_text(content)
    remedy = "remove it, .*--resume" if name == "summary.json" else "train again"
    calls = {
        "usable": lambda: check_usable(run),
        "load": lambda: load_run(run),
        "pack": lambda: check_like_trained(splits["train"], run, config, augment),
    }
    with pytest.raises(InputError, match=rf"{name} is damaged \(.*; {remedy}"):
        calls[read]()


def test_a_damaged_summary_is_made_anew_as_its_message_says(splits, straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    (tmp_path / "run" / "summary.json").write_text("{}")
    with pytest.raises(InputError, match=r"summary.json is damaged"):
        train(configure(splits), splits, tmp_path / "run", resume=True, progress=False)
    (tmp_path / "run" / "summary.json").unlink()
    train(configure(splits), splits, tmp_path / "run", resume=True, progress=False)
    assert weights(tmp_path / "run") == weights(straight)


def test_a_run_may_be_named_by_a_string(straight):
    assert load_run(str(straight))[2] == load_run(straight)[2]
    check_usable(str(straight))
    assert starting_point(str(straight)) == starting_point(straight)


def test_a_loaded_run_is_the_trained_net(splits, straight):
    net, augment, config = load_run(straight)
    assert not net.training and config == configure(splits)
    assert np.array_equal(augment.mean.numpy(), splits["train"].mean)
    merged = load_file(straight / "weights.safetensors")
    assert all(torch.equal(merged[name], value) for name, value in net.export_merged().items())


@pytest.mark.parametrize(
    ("name", "place"), [("images", "RUN"), ("images/0.jpg", "RUN"), ("empty", "{}"), ("new", "{}")]
)
def test_where_a_run_can_be_made_is_said_where_there_is_none(tmp_path, name, place):
    """The remedy is one that works: training refuses folders that hold something else."""
    (tmp_path / "images").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "images" / "0.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds no run; make one .*--out ") as error:
        load_run(tmp_path / name)
    assert str(error.value).endswith(f"--out {place.format(tmp_path / name)}`")
