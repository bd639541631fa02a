"""A trained net, called on photographs: the same numbers as evaluation's, from a run's folder and
from each kind of exported file."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import alexnet
from alexnet import AlexNet, Classifier, evaluation, export
from alexnet.card import UNLICENSED, Card
from alexnet.errors import InputError
from alexnet.training import load_run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def exported(straight, tmp_path_factory):
    """The run's files: .safetensors, and .onnx."""
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    folder, net = tmp_path_factory.mktemp("exported"), load_run(straight)[0]
    for name in ("net.safetensors", "net.onnx"):
        export.write(net, folder / name, Card.of_run(straight).metadata())
    return folder


def test_a_run_predicts_what_evaluation_does(splits, straight):
    pack = splits["test"]
    net, augment, _ = load_run(straight)
    classify = AlexNet.from_run(str(straight))
    for views in (1, 10):
        expected, _ = evaluation.predict(net, pack, augment, views)
        found = classify(pack.gather(range(len(pack))), views)
        together = torch.stack([one.probabilities for one in found])
        torch.testing.assert_close(together, expected, rtol=0, atol=1e-6)
    assert classify.names == pack.names == found[0].names and isinstance(classify.net, AlexNet)
    best = int(expected[0].argmax())
    assert found[0].top()[0] == (
        pack.names[best],
        pytest.approx(float(expected[0, best]), abs=1e-6),
    )


def test_paths_pillow_images_and_arrays_are_the_same_photograph(splits, straight, tmp_path):
    array = splits["test"].gather([3])[0]
    Image.fromarray(array).save(tmp_path / "x.png")
    classify = Classifier.open(straight)
    photos = [tmp_path / "x.png", str(tmp_path / "x.png"), Image.open(tmp_path / "x.png"), array]
    photos += [array.astype(float), torch.from_numpy(array)]
    one = classify(photos[0])
    for other in [*map(classify, photos), *classify(photos), alexnet.predict(straight, array)]:
        torch.testing.assert_close(other.probabilities, one.probabilities, rtol=0, atol=1e-6)
    assert [p.image for p in classify(photos)[:4]] == [str(tmp_path / "x.png")] * 3 + [""]
    big = Image.fromarray(array).resize((144, 200))  # scaled and cut, as in preparation
    assert abs(float(classify(big).probabilities.sum()) - 1) < 1e-6


@pytest.mark.parametrize("name", ["net.safetensors", "net.onnx"])
@pytest.mark.parametrize("views", [1, 10])
def test_exported_files_predict_the_same(splits, straight, exported, name, views):
    images = splits["test"].gather(range(6))
    expected, found = (Classifier.open(x)(images, views) for x in (straight, exported / name))
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other.probabilities, one.probabilities, rtol=1e-4, atol=1e-5)
        assert (other.classes, other.names) == (one.classes, one.names)


def test_the_card_holds_all_that_a_net_needs(splits, straight, exported):
    card = Card.of_run(straight)
    assert np.array_equal(card.mean, splits["train"].mean)
    assert (card.classes, card.names) == (splits["train"].classes, splits["train"].names)
    assert card.license == UNLICENSED and (card.preset, card.image_size) == ("paper", 64)
    for name in ("net.safetensors", "net.onnx"):
        again = Classifier.open(exported / name).card
        assert np.array_equal(again.mean, card.mean) and again.names == card.names
        assert again.metadata().items() >= card.metadata().items()


def test_runs_of_others_have_a_license_and_older_ones_no_names(straight, tmp_path):
    run = shutil.copytree(straight, tmp_path / "run")
    (run / "license.txt").write_text("public domain\n")
    (run / "names.json").unlink()
    (run / "classes.json").write_text('["a_b", "c", "d"]')
    card = Card.of_run(run)
    assert card.license == "public domain" and card.names == ["a b", "c", "d"]
    (run / "classes.json").unlink()
    assert Card.of_run(run).names == ["0", "1", "2"]
    (run / "classes.json").write_text('["a"]')
    with pytest.raises(InputError, match=r"classes.json is damaged \(not 3 texts\)"):
        Classifier.open(run)


def test_what_is_no_net_is_named_with_a_remedy(straight, exported, tmp_path):
    (tmp_path / "text.onnx").write_text("no net")
    (tmp_path / "text.safetensors").write_text("no net")
    (tmp_path / "net.pt").touch()
    (tmp_path / "folder").mkdir()
    weights = {"conv1.weight": torch.zeros(1)}
    save_file(weights, tmp_path / "bare.safetensors")
    about = Card.of_run(straight).metadata()
    save_file(weights, tmp_path / "other.safetensors", about)
    save_file(weights, tmp_path / "mean.safetensors", about | {"mean": "AAAA"})
    save_file(weights, tmp_path / "count.safetensors", about | {"classes": json.dumps(["a"])})
    for name, reason in {
        "text.onnx": "is no ONNX file", "text.safetensors": "is no safetensors file",
        "net.pt": "name its folder, or a .onnx or .safetensors", "folder": "holds no run",
        "bare.safetensors": "lacks preset, .*mean.*by `alexnet export RUN bare.safetensors`",
        "other.safetensors": "conv1.weight has shape|the weights lack",
        "mean.safetensors": "damaged", "count.safetensors": "name 1 classes",
        "gone.onnx": "does not exist", "no/such/run": "does not exist",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=reason):
            Classifier.open(tmp_path / name)
    with pytest.raises(InputError, match=r"nosuchnet is no run and no file here"):
        Classifier.open("nosuchnet")
    with pytest.raises(InputError, match=r"views 3: give 1 or 10"):
        Classifier.open(straight)(np.zeros((9, 9, 3), np.uint8), 3)
    with pytest.raises(InputError, match=r"ONNX runs on the CPU"):
        Classifier.open(exported / "net.onnx").to("cuda")
    assert "preset 'paper'" in repr(Classifier.open(straight))
