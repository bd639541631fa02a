"""The command line: from images to weights, what is said of bad input, how it ends when stopped."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from alexnet import AlexNet, cli, commands, presets
from alexnet.data.pack import open_splits
from alexnet.evaluation import predict
from alexnet.training import checkpoint, load_run, log
from tests import archives
from tests.images import image_folder

pytestmark = pytest.mark.usefixtures("one_thread")
PROGRAM = [sys.executable, "-m", "alexnet"]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
FOUR = ["--preset", "four-layer", "--width", "0.25", "--batch-size", "8"]


def alexnet(*arguments):
    """The exit status, as a shell would see it; an argument may be several words."""
    try:
        return cli.main([word for argument in arguments for word in str(argument).split()])
    except SystemExit as end:
        return end.code


@pytest.fixture(scope="module")
def run(packs32, tmp_path_factory):
    """A finished run of five steps."""
    out = tmp_path_factory.mktemp("cli") / "run"
    assert (
        alexnet("train", "--data", packs32, "--out", out, *FOUR, "--epochs", 1, "--lr", 0.001) == 0
    )
    return out


# --- the whole way ---------------------------------------------------------------------------


def test_prepare_train_evaluate_export(packs72, tmp_path, capsys):
    images = packs72.parent / "images"
    assert alexnet("prepare", images, tmp_path / "pack", "--size", 72, "--workers", 1) == 0
    assert open_splits(tmp_path / "pack")["train"].digest == open_splits(packs72)["train"].digest
    options = ["--width", 0.0625, "--batch-size", 16, "--steps", 4, "--seed", 3]
    assert alexnet("train", "--data", tmp_path / "pack", "--out", tmp_path / "run", *options) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == str(tmp_path / "pack")
    assert re.fullmatch(rf"{tmp_path}/run: 4 steps, 1\.3 epochs, \d+ s; weights in .*", told[1])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["preset"], config["seed"], config["num_classes"]) == ("paper", 3, 3)
    assert config["image_size"] == 64  # 7/8 of 72, in eights
    assert len(list(log.read(tmp_path / "run", "step"))) == 4
    for views, how in ((1, "one view"), (10, "10 views")):
        assert (
            alexnet("evaluate", tmp_path / "run", "--data", tmp_path / "pack", "--views", views)
            == 0
        )
        line = capsys.readouterr().out
        assert re.fullmatch(rf"test, 6 images, {how}: top-1 error [\d.]+%, [\d.]+ nats\n", line)
    for split, count in (("train", 36), ("val", 6)):
        assert (
            alexnet("evaluate", tmp_path / "run", "--data", tmp_path / "pack", "--split", split)
            == 0
        )
        what = f"{split}{' (the images of training)' * (split == 'train')}, {count} images"
        assert capsys.readouterr().out.startswith(f"{what}, one view: ")
    assert (
        alexnet("evaluate", tmp_path / "run", "--data", tmp_path / "pack" / "val") == 0
    )  # a single pack
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'pack' / 'val'}, 6 images, ")
    assert alexnet("export", tmp_path / "run", tmp_path / "new" / "net.safetensors") == 0
    net = AlexNet("paper", 3, 0.0625, 64)
    net.load_merged(load_file(tmp_path / "new" / "net.safetensors"))
    trained = load_file(tmp_path / "run" / "weights.safetensors")
    assert all(torch.equal(trained[name], value) for name, value in net.export_merged().items())
    with safe_open(tmp_path / "new" / "net.safetensors", "pt") as file:
        about = {"preset": "paper", "num_classes": "3", "width": "0.0625", "image_size": "64"}
        assert file.metadata().items() > about.items()


def test_prepare_a_part_and_verify(packs72, tmp_path, capsys):
    images = packs72.parent / "images"
    names = sorted(path.name for path in (images / "train").iterdir())
    (tmp_path / "names.txt").write_text(f"{names[2]}\n{names[0]}\n")
    options = ["--size", 32, "--workers", 1, "--encoding", "jpeg", "--limit", 5, "--verify"]
    assert (
        alexnet(
            "prepare", images, tmp_path / "a", "--classes", f"@{tmp_path / 'names.txt'}", *options
        )
        == 0
    )
    packs = open_splits(tmp_path / "a")
    assert packs["train"].classes == [names[0], names[2]] and packs["train"].encoding == "jpeg"
    assert {split: len(pack) for split, pack in packs.items()} == {"train": 10, "val": 4, "test": 4}
    told = capsys.readouterr().out.splitlines()
    digest = f"train has digest {packs['train'].digest[:16]}"
    assert told[0] == f"{tmp_path / 'a' / 'train'}: 10 images, as its manifest says; {digest}"
    for classes, expected in (("2", names[:2]), (f"{names[1]},", [names[1]])):
        part = ["--classes", classes, "--size 16 --workers 1"]
        assert alexnet("prepare", images, tmp_path / classes, *part) == 0
        assert open_splits(tmp_path / classes)["val"].classes == expected
    capsys.readouterr()
    assert alexnet("prepare", "--verify", tmp_path / "a") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    shard = tmp_path / "a" / "val" / "images-00000.jpegs"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert alexnet("prepare", "--verify", tmp_path / "a") == 2
    assert "images-00000.jpegs is not what its manifest says" in capsys.readouterr().err
    assert (
        alexnet("prepare", images) == 2
        and "name the pack's folder as well" in capsys.readouterr().err
    )
    assert alexnet("prepare", images, tmp_path / "b", "--classes", "nothing", "--size", 16) == 2
    assert "has no class nothing; it has" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("preset", "columns", "found", "maps"),
    [
        ("paper", 2, "paper", 6),
        ("paper", 1, "paper/one-column", 3),
        ("source/one-column", 1, "source/one-column", 3),
        ("four-layer", 1, "four-layer", 2),
    ],
)
def test_columns(packs72, tmp_path, preset, columns, found, maps):
    options = ["--width 0.0625 --batch-size 16 --steps 1 --preset", preset, "--columns", columns]
    assert alexnet("train", "--data", packs72, "--out", tmp_path / "run", *options) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["preset"] == found
    assert len(load_file(tmp_path / "run" / "weights.safetensors")["conv1.bias"]) == maps


def test_checkpoints_as_often_as_asked(packs32, tmp_path):
    for seconds, names in ((1e-6, ["step-000000003", "step-000000004"]), (1e6, ["step-000000004"])):
        out = tmp_path / str(seconds)
        options = [*FOUR, "--steps 4 --lr 0.001 --checkpoint-every", seconds]
        assert alexnet("train --data", packs32, "--out", out, *options) == 0
        assert sorted(path.name for path in (out / "checkpoints").iterdir()) == names


def test_a_finished_run_is_not_run_again(packs32, run, capsys):
    before = (run / "weights.safetensors").stat().st_mtime_ns
    train = ["train", "--data", packs32, "--out", run, *FOUR, "--epochs", 1, "--lr", 0.001]
    assert alexnet(*train, "--resume") == 0
    assert (run / "weights.safetensors").stat().st_mtime_ns == before
    capsys.readouterr()
    assert alexnet(*train) == 2
    assert alexnet(*train, "--resume", "--seed", 1) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(
        "already holds a run; add --resume to go on with it, or choose another folder"
    )
    assert "holds a run with seed 0, not 1" in second


def test_a_run_starts_from_another(packs32, run, tmp_path, capsys):
    train = ["train --data", packs32, "--out", tmp_path / "tuned", *FOUR]
    train += ["--epochs 1 --lr 1e-9 --seed 4"]
    assert alexnet(*train, "--init", run) == 0
    before, after = (
        load_file(run / "weights.safetensors"),
        load_file(tmp_path / "tuned" / "weights.safetensors"),
    )
    moved = {
        name for name, value in after.items() if not torch.allclose(value, before[name], atol=1e-4)
    }
    assert moved == {"fc4.weight", "fc4.bias"}  # drawn anew
    capsys.readouterr()
    assert (
        alexnet(*train, "--resume") == 2 and "holds a run with start '" in capsys.readouterr().err
    )
    assert alexnet(*train, "--init", run, "--resume") == 0


def test_the_net_of_another_run_is_taken_over_and_frozen_layers_stay(packs32, run, tmp_path):
    """Neither preset nor width is said again."""
    train = ["train", "--data", packs32, "--out", tmp_path / "tuned", "--batch-size", 8]
    assert alexnet(*train, "--epochs", 1, "--init", run, "--freeze", "conv1,conv2") == 0
    config, other = (
        json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "tuned", run)
    )
    same = ("preset", "width", "image_size")
    assert [config[name] for name in same] == [other[name] for name in same]
    assert config["frozen"] == "conv1,conv2"
    before, after = (
        load_file(folder / "weights.safetensors") for folder in (run, tmp_path / "tuned")
    )
    moved = {name.partition(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"conv3", "fc4"}


@pytest.mark.parametrize(("size", "crop"), [(64, 64), (65, 64), (100, 88)])
def test_the_usual_crops_fit_the_pack(tmp_path, size, crop, capsys):
    """7/8 of 64 pixels are too few for AlexNet, which takes 64."""
    image_folder(tmp_path / "photos", [(size, size)] * 4)
    more = ["--split", "50/25/25", "--workers", 1]
    assert alexnet("prepare", tmp_path / "photos", tmp_path / "data", "--size", size, *more) == 0
    train = ["train", "--data", tmp_path / "data", "--out", tmp_path / "run"]
    assert alexnet(*train, "--steps", 1, "--width", 0.0625) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["image_size"] == crop


@pytest.fixture(scope="module")
def contest(tmp_path_factory):
    """A folder of packs made from archives like ILSVRC-2012's, and two runs on it.

    It has six classes, and five test images without labels.
    """
    folder = tmp_path_factory.mktemp("contest")
    wnids = [f"n0{i}" for i in range(1, 7)]
    root = folder / "archives"
    root.mkdir()
    train = {
        w: [(f"{w}_{i}.JPEG", archives.picture(10 * c + i)) for i in range(3)]
        for c, w in enumerate(wnids)
    }
    archives.pack(
        root / "ILSVRC2012_img_train.tar",
        [(f"{wnid}.tar", archives.packed(files)) for wnid, files in train.items()],
    )
    for split, count in (("val", 6), ("test", 5)):
        files = [
            (f"ILSVRC2012_{split}_{i:08d}.JPEG", archives.picture(100 + i))
            for i in range(1, count + 1)
        ]
        archives.pack(root / f"ILSVRC2012_img_{split}.tar", files)
    kit, words = "ILSVRC2012_devkit_t12", [f"fish {i}" for i in range(6)]
    archives.devkit(root / f"{kit}.tar.gz", kit, 2012, [1, 2, 3, 4, 5, 6], wnids, words)
    assert alexnet("prepare", root, folder / "packs", "--size", 32, "--workers", 1) == 0
    for seed in (0, 1):
        options = ["--seed", seed, "--epochs", 1, "--lr", 0.001]
        assert (
            alexnet(
                "train", "--data", folder / "packs", "--out", folder / f"run{seed}", *FOUR, *options
            )
            == 0
        )
    return folder


def test_a_submission_names_five_classes_an_image_by_their_numbers(contest, tmp_path, capsys):
    capsys.readouterr()
    runs = [contest / "run0", contest / "run1"]
    file = tmp_path / "new" / "flat.txt"
    assert (
        alexnet("evaluate", *runs, "--data", contest / "packs", "--submission", file, "--views", 10)
        == 0
    )
    what = "test, 5 images, 10 views, 2 nets averaged"
    assert capsys.readouterr().out == f"{file}: {what}: five classes a line, by ILSVRC's numbers\n"
    test = open_splits(contest / "packs")["test"]
    both = [predict(net, test, augment, 10)[0] for net, augment, _ in map(load_run, runs)]
    expected = ((both[0] + both[1]) / 2).topk(5).indices
    lines = [[int(word) for word in line.split(" ")] for line in file.read_text().splitlines()]
    assert (
        lines == (6 - expected).tolist()
    )  # of six classes, the first by name is the last by number
    assert [path.name for path in file.parent.iterdir()] == ["flat.txt"]
    # images whose labels are known are measured as well, and by the kit's own list the errors come
    # out the same
    assert (
        alexnet(
            "evaluate", *runs, "--data", contest / "packs", "--split", "val", "--submission", file
        )
        == 0
    )
    measured, _ = capsys.readouterr().out.splitlines()
    truth = [1, 2, 3, 4, 5, 6]
    best = [[int(word) for word in line.split()] for line in file.read_text().splitlines()]
    missed = [
        sum(t not in line[:k] for t, line in zip(truth, best, strict=True)) / 6 for k in (1, 5)
    ]
    what = "val, 6 images, one view, 2 nets averaged"
    errors = r"top-1 error ([\d.]+)%, top-5 error ([\d.]+)%, [\d.]+ nats"
    found = re.fullmatch(f"{what}: {errors}", measured)
    assert [float(number) for number in found.groups()] == pytest.approx(
        [100 * m for m in missed], abs=0.01
    )


def test_images_without_labels_are_measured_by_nobody(contest, capsys):
    assert alexnet("evaluate", contest / "run0", "--data", contest / "packs") == 0
    assert capsys.readouterr().out.startswith(
        "val, 6 images, one view: "
    )  # test is there, and has no labels
    for arguments in (["evaluate", contest / "run0"], ["train", *FOUR, "--out", contest / "none"]):
        assert alexnet(*arguments, "--data", contest / "packs" / "test") == 2
        assert "test have no labels" in capsys.readouterr().err


def test_a_divergence_is_told_in_one_line_and_the_run_is_of_no_use(packs32, tmp_path, capsys):
    train = ["train", "--data", packs32, *FOUR, "--epochs", 9]
    out = tmp_path / "run"
    for rate, batch, kept in (
        (1e9, 8, "there is no checkpoint"),
        (1e4, 40, rf"{out}/checkpoints/step-\d+, the last good .* is kept"),
    ):
        assert alexnet(*train, "--out", out, "--lr", rate, "--batch-size", batch) == 1
        (line,) = capsys.readouterr().err.splitlines()
        where = r"alexnet: at step (\d) \(batch \d of \d in epoch \d\)"
        what = f"{where} the loss, or a weight before it, was no longer finite"
        found = re.fullmatch(f"{what}; {kept}; try a lower --lr in another folder", line)
        assert found, line
        assert json.loads((out / "summary.json").read_text())["diverged_at"] == int(found[1])
        more = ["train", "--data", packs32, "--out", tmp_path / "more", *FOUR, "--init", out]
        for command in (
            ["evaluate", out, "--data", packs32],
            ["export", out, tmp_path / "x.safetensors"],
            more,
        ):
            assert alexnet(*command) == 2
            assert (
                f"diverged at step {found[1]}, and is of no use; train again"
                in capsys.readouterr().err
            )
        shutil.rmtree(out)


# --- bad input -------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path):
    """A folder of class folders with a truncated image."""
    for name in ("a", "b"):
        (tmp_path / "broken" / name).mkdir(parents=True)
    (tmp_path / "broken" / "b" / "0.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    from PIL import Image

    Image.new("RGB", (40, 40), (1, 2, 3)).save(tmp_path / "broken" / "a" / "0.png")
    return tmp_path / "broken"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("prepare {tmp}/nowhere {tmp}/out", "nowhere"),
        ("prepare {tmp}/empty {tmp}/out", "empty"),
        ("prepare {broken} {tmp}/out --workers 1", "0.jpg.*--skip-bad"),
        ("prepare {images} {tmp}/out --size 0", "size 0"),
        (
            "prepare {images} {tmp}/out --size big",
            "--size big: give a whole number of pixels, or native",
        ),
        (
            "prepare {images} {tmp}/out --workers none",
            "argument --workers: none is not a whole number",
        ),
        ("prepare {images} {tmp}/out --classes ,", "classes: name at least one"),
        ("prepare {images} {tmp}/out --classes @{tmp}/none.txt", "classes: name at least one"),
        ("prepare torchvision:FakeData:{tmp} {tmp}/out", "names no data set of torchvision"),
        ("prepare torchvision:VisionDataset:{tmp} {tmp}/out", "names no data set of torchvision"),
        ("prepare {images} {tmp}/" + 300 * "x", "File name too long; choose another path"),
        ("prepare {images} {tmp}/file/out", "file"),
        ("prepare {images} ..", r"\.\. exists already, and is no pack: choose another name$"),
        ("prepare {images} /", "/ exists already, and is no pack: choose another name$"),
        ("prepare {images} {pack}", "not this source's pack with these options: remove it or"),
        ("prepare {images} {tmp}/out --max-megapixels 0", "argument --max-megapixels: 0 is not"),
        ("prepare {images} . --size 32 --workers 1", r"cannot make \.: .*; choose another name"),
        (
            "train --data {tmp}/nowhere --out {tmp}/run",
            "nowhere does not exist: make one with `alexnet prepare",
        ),
        ("train --data {tmp}/empty --out {tmp}/run", "is not a pack"),
        ("train --data {pack}/train --out {tmp}/run", "without a val split"),
        ("train --data {only_test} --out {tmp}/run", "has no train split; it has test"),
        (
            "train --data {pack} --out {tmp}/run --preset resnet",
            "no preset 'resnet'; there are paper, source, caffe, four-layer",
        ),
        ("train --data {pack} --out {tmp}/run --preset paper/pink", "no variant 'pink'"),
        ("train --data {other} --out {tmp}/run --image-size 80", "choose --image-size 72 or less"),
        (
            "train --data {pack} --out {tmp}/run",
            "32 x 32 are too small for preset 'paper', which takes crops of .* or more: prepare "
            "them with --size 64 or more, or take --preset four-layer",
        ),
        (
            "train --data {other} --out {tmp}/run --image-size 20",
            "has images of 72 x 72; --image-size 20 is too small for preset 'paper'.*: give --im",
        ),
        (
            "train --data {pack} --out {tmp}/run --device tpu",
            "no device 'tpu' here; use --device cpu",
        ),
        (
            "train --data {pack} --out {tmp}/run --preset four-layer --device meta",
            "no device 'meta' here; use --device cpu",
        ),
        (
            "train --data {pack} --out {tmp}/file --preset four-layer",
            "is a file; choose another name",
        ),
        ("train --data {pack} --out {tmp}/run --lr 0", "argument --lr: 0 is not a positive number"),
        (
            "train --data {pack} --out {tmp}/run --lr fast",
            "argument --lr: fast is not a positive number",
        ),
        (
            "train --data {pack} --out {tmp}/run --steps 0",
            "argument --steps: 0 is not a whole number from 1",
        ),
        ("train --data {pack} --out {tmp}/run --steps 3 --epochs 2", "not allowed with argument"),
        ("train --data {pack} --out {tmp}/run --epochs -1", "-1 is not a positive number"),
        ("train --data {pack} --out {tmp}/run --batch-size 1.5", "1.5 is not a whole number"),
        ("train --data {pack} --out {tmp}/run --seed 99999999999999999999", "argument --seed"),
        (
            "train --data {pack} --out {tmp}/run --epochs 1e308",
            "argument --epochs: 1e308 is not a positive number of at most 1e12",
        ),
        (
            "train --data {pack} --out {tmp}/run --preset four-layer --width 1e6",
            "GiB of memory.*choose a smaller width",
        ),
        (
            "train --data {pack} --out {tmp}/run --preset paper/conv6/conv6",
            "variant 'conv6' more than once",
        ),
        ("train --data {pack} --out {tmp}/run --columns 3", "argument --columns: invalid choice"),
        ("train --data {pack}", "required: --out"),
        (
            "train --data {pack} --out {tmp}/run --preset four-layer --init {tmp}/empty",
            "holds no run; make one with `alexnet train",
        ),
        (
            "train --data {pack} --out {tmp}/run --preset four-layer --init {unfinished}",
            "is not finished",
        ),
        (
            "train --data {pack} --out {tmp}/run --preset four-layer --width 1 --init {run}",
            r"run is of width 0.25, not 1.0: leave out --width",
        ),
        (
            "train --data {pack} --out {tmp}/run --preset paper --init {run}",
            r"run is of preset 'four-layer', not 'paper': leave out --preset",
        ),
        (
            "train --data {pack} --out {tmp}/run --image-size 40 --init {run}",
            r"has images of 32 pixels, and the run .* crops of 40: prepare them with --size 40",
        ),
        (
            "train --data {pack} --out {tmp}/run --preset four-layer --freeze conv1,conv9",
            "preset 'four-layer' has no layer 'conv9' to freeze; it has conv1, conv2, conv3, fc4",
        ),
        (
            "train --data {pack} --out {tmp}/run --preset four-layer "
            "--freeze conv1,conv2,conv3,fc4",
            "all layers are frozen: leave one that learns",
        ),
        ("prepare {images} {tmp}/out --split 80/10", "split 80/10: give percents for train, val"),
        ("evaluate {tmp}/empty --data {pack}", "holds no run; make one with `alexnet train"),
        ("evaluate {run} --data {tmp}/nowhere", "does not exist"),
        (
            "evaluate {run} --data {images}",
            "is not a pack: make one of its images with `alexnet prepare .*images PACK`",
        ),
        ("evaluate {run} --data {other}", "has 3 classes of 72-pixel images.*trained on 4 of 32"),
        ("evaluate {run} --data {pack}/val --split test", "has no test split; it has train"),
        ("evaluate {unfinished} --data {pack}", "is not finished; go on with it by .* --resume"),
        ("evaluate {hollow} --data {pack}", "weights.safetensors is missing"),
        ("evaluate {run} --data {pack} --views 5", "argument --views: invalid choice"),
        ("evaluate {run} {tmp}/nowhere --data {pack}", "nowhere holds no run"),
        (
            "evaluate {run} --data {pack} --submission {tmp}/x.txt",
            "have no ILSVRC numbers: prepare it from ILSVRC's archives",
        ),
        (
            "evaluate {run} --data {fish} --submission {tmp}/x.txt",
            "fish/test has 4 classes, and a line of a submission names five",
        ),
        ("export {tmp}/nowhere {tmp}/x.safetensors", "holds no run"),
        (
            "evaluate {run} --data {renamed}",
            "renamed/test has other classes than .*, of which one is 'sun'",
        ),
        ("export {run} {tmp}/x.pt", r"should end in .safetensors or .onnx"),
        ("export {run} {tmp}/dir.safetensors", "dir.safetensors is a folder; name a file"),
        ("export {run} {tmp}/file/x.safetensors", "file.*choose another place"),
        ("fly", "invalid choice: 'fly'"),
        ("", "required: COMMAND"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(
    arguments, said, tmp_path, broken, packs32, packs72, run, capsys, monkeypatch
):
    for folder in ("empty", "here", "dir.safetensors"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copytree(packs32, tmp_path / "renamed")
    for manifest in (tmp_path / "renamed").glob("*/manifest.json"):
        manifest.write_text(manifest.read_text().replace('"sun"', '"moon"'))
    shutil.copytree(packs32, tmp_path / "fish")
    for manifest in (tmp_path / "fish").glob("*/manifest.json"):
        manifest.write_text(
            json.dumps(json.loads(manifest.read_text()) | {"numbers": [4, 3, 2, 1]})
        )
    for name in ("file", "none.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "only_test").mkdir()
    (tmp_path / "only_test" / "test").symlink_to(packs32 / "test")
    for name, missing in (
        ("unfinished", ("summary.json", "weights.safetensors")),
        ("hollow", ("weights.safetensors",)),
    ):
        shutil.copytree(run, tmp_path / name, ignore=shutil.ignore_patterns(*missing))
    places = {
        "tmp": tmp_path,
        "broken": broken,
        "images": packs32.parent / "images",
        "pack": packs32,
        "other": packs72,
        "run": run,
    }
    places |= {
        name: tmp_path / name for name in ("only_test", "unfinished", "hollow", "renamed", "fish")
    }
    capsys.readouterr()
    assert alexnet(arguments.format(**places)) == 2
    out, err = capsys.readouterr()
    lines = [
        line for line in err.splitlines() if "images/s" not in line and "%|" not in line
    ]  # progress of preparing
    assert (
        out == ""
        and len(lines) == 1
        and lines[0].startswith("alexnet")
        and re.search(said, lines[0])
    ), err
    assert (
        not (tmp_path / "run").exists()
        and not (tmp_path / "out").exists()
        and not any((tmp_path / "here").iterdir())
    )


def test_names_of_files_do_not_command_the_terminal(tmp_path, capsys):
    (tmp_path / "source" / "a").mkdir(parents=True)
    (tmp_path / "source" / "a" / "\x1b[31mred\x9b.jpg").write_text("no image")
    assert alexnet("prepare", tmp_path / "source", tmp_path / "out", "--size", 8) == 2
    assert "/a/?[31mred?.jpg: no image" in capsys.readouterr().err


def test_failures_of_ours_are_exit_status_1(monkeypatch, capsys, run, tmp_path):
    full = OSError(
        "cannot write a checkpoint to /data/igloo/NCCL: No space left on device"
    )  # no message of gloo's
    for error, said in (
        (RuntimeError("out of memory"), "out of memory"),
        (SafetensorError("disk full"), "disk full"),
        (full, str(full)),
    ):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr("alexnet.export.save_file", fail)
        assert alexnet("export", run, tmp_path / "new" / "x.safetensors") == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line and not any((tmp_path / "new").iterdir())


# --- help ------------------------------------------------------------------------------------


def test_every_option_is_explained(capsys):
    (commands,) = (
        action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    assert {"prepare", "train", "evaluate", "export", "reproduce"} <= set(commands.choices)
    explained = {choice.dest: choice.help for choice in commands._choices_actions}
    for name, sub in commands.choices.items():
        assert explained[name] and sub.description
        if name == "reproduce":
            continue  # its options are another module's
        for action in sub._actions:
            assert action.help, (name, action)
            if action.option_strings and action.default not in (None, False, argparse.SUPPRESS):
                assert "%(default)s" in action.help, (name, action)
        assert alexnet(name, "--help") == 0
        text = capsys.readouterr().out
        assert (
            all(option in text for action in sub._actions for option in action.option_strings)
            and "default: None" not in text
        )


# --- as a program ----------------------------------------------------------------------------


def test_a_stopped_training_says_how_to_go_on_and_goes_on(packs32, tmp_path):
    run = tmp_path / "run"
    train = [*PROGRAM, "train", "--data", packs32, "--out", run, *FOUR, "--lr", "1e-6"]
    at = []
    stops = ((signal.SIGTERM, []), (signal.SIGINT, ["--resume"]), (signal.SIGHUP, ["--resume"]))
    for number, more in stops:
        pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen([*train, "--epochs", "100000", *more], env=ONE_THREAD, **pipes)
        before = checkpoint.steps(run / "checkpoints")
        wait_for(
            lambda last=before[-1:]: checkpoint.steps(run / "checkpoints")[-1:] != last, process
        )
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 128 + number, err
        assert out == "" and "Traceback" not in err
        last = err.splitlines()[-1]
        how = "nothing is lost: the same command with --resume goes on from there"
        found = re.fullmatch(rf"alexnet: stopped at step (\d+) of 500000; {how}", last)
        assert found, err
        at.append(int(found[1]))
        assert (run / "checkpoints" / f"step-{at[-1]:09d}").is_dir()
    assert 5 <= at[0] < at[1] < at[2]
    assert [row["step"] for row in log.read(run, "step")] == list(range(1, at[2] + 1))


def wait_for(condition, process):
    """Until the condition holds, or the process has ended."""
    for _ in range(6000):
        if condition() or process.poll() is not None:
            return
        time.sleep(0.01)


DURING_AN_IMPORT = """
import _imp, os, signal, sys
from alexnet import cli

def watch(frame, event, argument):
    locking = event == "c_return" and argument is _imp.acquire_lock
    caught = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    if locking and caught and frame.f_code.co_name == "cb":
        sys.setprofile(None)
        os.kill(os.getpid(), int(sys.argv[1]))

sys.setprofile(watch)
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_an_import_is_not_lost(packs32, tmp_path, number):
    """At the moment when Python would swallow an exception and keep the lock of all imports."""
    train = ["train", "--data", packs32, "--out", tmp_path / "run", *FOUR, "--epochs", "60"]
    command = [sys.executable, "-c", DURING_AN_IMPORT, str(number.value), *train, "--lr", "1e-6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.splitlines()[-1].startswith("alexnet: stopped")


def test_sigterm_while_preparing_leaves_nothing_behind(packs72, tmp_path):
    out = tmp_path / "place" / "pack"
    command = [*PROGRAM, "prepare", "pictographs", out, "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(tmp_path.glob("place/.*/*/*/*/*")), process)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and err.splitlines()[-1] == "alexnet: stopped"
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("command", ["claims --json", "train --help"])
def test_a_reader_that_has_seen_enough_is_no_error(command):
    """`alexnet claims | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen([*PROGRAM, *command.split()], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode in (0, 128 + signal.SIGPIPE)  # argparse says nothing of it


def test_output_that_cannot_be_written_is_known():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PROGRAM, "claims"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


def test_another_copys_program_says_so(tmp_path, monkeypatch, capsys):
    (tmp_path / "alexnet").mkdir()
    (tmp_path / "alexnet" / "cli.py").touch()
    monkeypatch.chdir(tmp_path)
    assert alexnet("export run file.safetensors") == 2
    assert "not that in this folder" in capsys.readouterr().err


def test_without_the_archive_claims_say_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("alexnet.results.ARCHIVE", tmp_path / "results")
    assert alexnet("claims") == 0
    assert "no archive of results in" in capsys.readouterr().err


def test_ctrl_c_elsewhere_is_130(monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("alexnet.training.check_usable", stop)
    assert alexnet("export", "run", "file.safetensors") == 130
    assert capsys.readouterr().err == "alexnet: stopped\n"


def test_the_module_is_the_program(tmp_path):
    command = [*PROGRAM, "train", "--data", tmp_path / "x", "--out", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"alexnet: {tmp_path}/x does not exist")


@pytest.mark.parametrize(
    ("size", "preset", "crop"),
    [
        *((256, "paper", 224), (64, "paper", 64), (71, "paper", 64), (72, "paper", 64)),
        *((32, "four-layer", 32), (48, "caffe", 40), (33, "paper", 33)),
    ],
)
def test_crops_fit_the_pack_and_the_preset(size, preset, crop):
    assert commands._usual_crop(size, presets.get(preset)) == crop
