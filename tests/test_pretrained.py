"""Weights that come along: in bfloat16, measured as they are, with all that is known of them; and
torch.hub's way to them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from alexnet import AlexNet, Classifier, cli, evaluation, predict, pretrained
from alexnet.data.pack import open_splits
from alexnet.errors import InputError
from alexnet.training import load_run
from scripts import add_weights

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[1]
LICENSE = "CC BY 4.0"


@pytest.fixture
def weights(straight, packs72, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    pretrained.save_pretrained(
        str(straight), str(tmp_path / "small.safetensors"), str(packs72), LICENSE, trained_on="x"
    )
    return tmp_path / "small.safetensors"


def test_the_file_holds_rounded_weights_their_errors_recipe_and_license(straight, packs72, weights):
    net, augment, config = load_run(straight)
    rounded = load_file(weights)
    assert {value.dtype for value in rounded.values()} == {torch.bfloat16}
    for name, value in net.export_merged().items():
        assert torch.equal(rounded[name], value.to(torch.bfloat16))
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    assert (metadata["license"], metadata["trained_on"]) == (LICENSE, "x")
    recipe, errors = (json.loads(metadata[name]) for name in ("recipe", "errors"))
    assert (recipe["preset"], recipe["seed"]) == ("paper", config.seed)
    net.load_merged(rounded)
    test = open_splits(packs72)["test"]
    for views in (1, 10):
        expected = evaluation.evaluate(net, test, augment, views).rounded()
        assert errors[f"views_{views}"] == expected
    assert (errors["split"], errors["images"]) == ("test", 6)
    assert len(weights.read_bytes()) < 0.6 * (straight / "weights.safetensors").stat().st_size + 1e5


def test_a_net_is_opened_by_its_name(straight, splits, weights, tmp_path, capsys):
    classify = AlexNet.pretrained("small")
    assert isinstance(classify, Classifier) and classify.card.license == LICENSE
    image = splits["test"].gather([0])[0]
    own = predict(straight, image).probabilities
    torch.testing.assert_close(classify(image).probabilities, own, rtol=0, atol=0.02)
    photo = tmp_path / "photo.png"
    from PIL import Image

    Image.fromarray(image).save(photo)
    assert cli.main(["predict", "small", str(photo)]) == 0
    assert classify(image).top()[0][0] in capsys.readouterr().out.splitlines()[1]
    with pytest.raises(InputError, match=r"large is no run .* come along \(small\)"):
        AlexNet.pretrained("large")


def test_what_cannot_be_saved_is_refused(straight, packs32, packs72, tmp_path):
    for file, data, reason in (
        ("x.onnx", packs72, r"should end in .safetensors"),
        ("x.safetensors", packs32, r"evaluate it on a pack like that one"),
        ("x.safetensors", packs72 / "train", r"prepare a source with splits"),
    ):
        with pytest.raises(InputError, match=reason):
            pretrained.save_pretrained(straight, tmp_path / file, data, LICENSE)
    assert not list(tmp_path.iterdir())


def test_one_command_adds_weights(straight, packs72, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "weights")
    words = [str(straight), "small", "--data", str(packs72), "--license", LICENSE]
    assert add_weights.main([*words, "--about", "trained_on=a few, small images"]) == 0
    assert "views_10" in capsys.readouterr().out and pretrained.names() == ["small"]
    more = AlexNet.pretrained("small").card.more
    assert more["trained_on"] == "a few, small images" and "recipe" in more
    before = (tmp_path / "weights" / "small.safetensors").read_bytes()
    assert add_weights.main(words) == 2 and "--replace" in capsys.readouterr().err
    assert add_weights.main([*words, "--replace"]) == 0
    assert (tmp_path / "weights" / "small.safetensors").read_bytes() != before
    for name in ("../small", "Small", "small.net"):
        assert add_weights.main([words[0], name, *words[2:]]) == 2
    with pytest.raises(SystemExit):
        add_weights.main([*words, "--about", "trained on"])
    monkeypatch.setattr(pretrained, "LARGEST", 1000)
    assert add_weights.main([*words, "--replace"]) == 2
    assert "take a narrower net's" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "weights").iterdir()] == ["small.safetensors"]


def test_another_net_begins_with_them(weights, packs72, tmp_path):
    """By way of `alexnet import`, which takes their name."""
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    assert cli.main(["import", "small", str(run)]) == 0
    net, _, config = load_run(run)
    for name, value in load_file(weights).items():
        assert torch.equal(net.export_merged()[name], value.float())
    assert AlexNet.from_run(run).card.license == LICENSE
    train = ["train", "--data", str(packs72), "--out", str(tuned), "--init", str(run)]
    assert cli.main([*train, "--lr", "0.001", "--steps", "1", "--device", "cpu"]) == 0
    assert load_run(tuned)[2].preset == config.preset
    assert cli.main(["import", "large", str(tmp_path / "other")]) == 2


@pytest.mark.parametrize("file", sorted((ROOT / "results" / "weights").glob("*.safetensors")))
def test_weights_that_come_along_are_complete(file):
    card = Classifier.open(file).card
    assert {"recipe", "errors"} <= card.more.keys() and card.license
    assert file.stat().st_size < pretrained.LARGEST == 8_000_000


def test_torch_hub_loads_net_and_weights_from_a_clone(weights, tmp_path):
    """In a process that has nothing of ours on its path."""
    program = f"""
import sys, torch
load = lambda *a, **k: torch.hub.load({str(ROOT)!r}, *a, source="local", **k)
net = load("alexnet", "paper/tanh", num_classes=5, width=1 / 8, image_size=64)
print(net(60 * torch.randn(2, 3, 64, 64)).shape)
from pathlib import Path
from alexnet import pretrained
pretrained.FOLDER = Path({str(tmp_path)!r})
print(load("pretrained", "small").names)
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    shape, names = done.stdout.splitlines()
    assert shape == "torch.Size([2, 5])" and names == "['cloud', 'sun', 'umbrella']"
