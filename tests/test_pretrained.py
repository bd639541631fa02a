"""Weights that come along: what their files say, and the ways to them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from alexnet import AlexNet, Classifier, cli, evaluation, pretrained
from alexnet.errors import InputError
from alexnet.training import load_run
from tests.images import photograph

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def written(straight, packs72, tmp_path_factory):
    """The folder with a net's weights, and what they say of it."""
    folder = tmp_path_factory.mktemp("weights")
    file = folder / "tiny.safetensors"
    metadata = pretrained.save_pretrained(straight, file, packs72, "CC0", trained_on="pictographs")
    return folder, metadata


@pytest.fixture
def folder(written, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", written[0])
    return written[0]


def test_the_file_says_recipe_errors_license_and_classes(written, straight, splits):
    path, metadata = written[0] / "tiny.safetensors", written[1]
    with safe_open(path, "pt") as file:
        assert file.metadata() == metadata
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    recipe, errors = json.loads(metadata["recipe"]), json.loads(metadata["errors"])
    assert recipe["preset"] == "paper" and recipe["data"]["train"] == splits["train"].digest
    assert (recipe["rate"], recipe["batch_size"], recipe["epochs"]) == (0.01, 8, 3.0)
    assert (metadata["license"], metadata["trained_on"]) == ("CC0", "pictographs")
    assert json.loads(metadata["classes"]) == splits["train"].classes
    # the errors are those of the weights in the file
    net, augment, _ = load_run(straight)
    net.load_merged({k: v.to(torch.bfloat16) for k, v in net.export_merged().items()})
    for views in (1, 10):
        expected = evaluation.evaluate(net, splits["test"], augment, views).rounded()
        assert errors[f"views_{views}"] == expected
    assert (errors["split"], errors["images"]) == ("test", 6)


def test_they_are_opened_by_name(folder, straight, splits):
    images = splits["test"].gather(range(6))
    classify, own = AlexNet.pretrained("tiny"), AlexNet.from_run(straight)
    assert classify.card.more["trained_on"] == "pictographs" and not classify.net.training
    for one, other in zip(classify(images), own(images), strict=True):
        torch.testing.assert_close(one.probabilities, other.probabilities, rtol=0, atol=0.02)
    assert Classifier.open("tiny").names == own.names
    with pytest.raises(
        InputError, match=r"paper-sized is no run .* weights that come along \(tiny"
    ):
        AlexNet.pretrained("paper-sized")


def test_predict_takes_their_name(folder, tmp_path, capsys):
    photograph(90, 60).save(tmp_path / "x.jpg")
    assert cli.main(["predict", "tiny", str(tmp_path / "x.jpg"), "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert len(one["top"]) == 3
    assert cli.main(["predict", "tyni", str(tmp_path / "x.jpg")]) == 2
    assert "weights that come along (tiny)" in capsys.readouterr().err


def test_what_cannot_be_saved_is_refused(straight, packs72, packs32, tmp_path):
    for run, name, data, said in (
        (straight, "net.onnx", packs72, "should end in .safetensors"),
        (tmp_path, "x.safetensors", packs72, "holds no run"),
        (straight, "x.safetensors", packs32, "4 classes of 32-pixel images"),
        (straight, "x.safetensors", packs72 / "train", "needs train and test or val"),
    ):
        with pytest.raises(InputError, match=said):
            pretrained.save_pretrained(run, tmp_path / name, data, "CC0")
    assert not list(tmp_path.iterdir())


def test_torch_hub_loads_a_clone(folder, tmp_path):
    """Nothing but the clone is on the path."""
    program = (
        f"import torch; load = lambda *a, **k: torch.hub.load({str(ROOT)!r}, *a, source='local', "
        "**k); net = load('alexnet', 'source', num_classes=5, width=1 / 16, image_size=64); "
        "import alexnet; print(alexnet.__file__, net.preset.name, net.table[-1].maps)"
    )
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=plain, capture_output=True, text=True
    )
    assert result.stdout.split() == [f"{ROOT}/alexnet/__init__.py", "source", "5"], result.stderr

    net = torch.hub.load(ROOT, "alexnet", weights="tiny", source="local")
    assert isinstance(net, AlexNet) and not net.training
    classify = torch.hub.load(ROOT, "classifier", "tiny", source="local")
    assert len(classify(photograph(80, 80)).top()) == 3
