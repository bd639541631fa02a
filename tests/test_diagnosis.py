"""Diagnosis of nets that do not train: broken ones are named rightly, healthy ones left alone."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import alexnet
from alexnet import diagnosis, presets, results
from alexnet.diagnosis import command, evidence, findings, images, sizes
from alexnet.diagnosis.command import of_config
from alexnet.errors import InputError
from alexnet.network import AlexNet
from alexnet.training import Config
from tests.runs import configure

KINDS = ("python", "bash", "text")  # of the page's blocks
MARGIN = 1.5  # between a net and the limit, on both sides


def config(preset="paper", classes=10, width=0.25, size=64, **more):
    return Config(preset, classes, width, size, epochs=1.0, data={}, **more)


def names(result):
    return [finding.name for finding in result.findings]


def measured(preset, width=0.25, size=64, seed=0, count=64):
    settings = config(preset, width=width, size=size, seed=seed)
    x, labels = command.batch_of(settings, None, count)
    return sizes.measure(settings.network(), x, labels)


def small_net(*more, classes=10):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, classes), *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def batch():
    """64 images of 32 pixels, of unit variance, with labels of 10 classes."""
    x, labels = images.stand_ins(presets.Recipe(), 32, 64, 10)
    return x / x.std(), labels


# --- presets --------------------------------------------------------------------------------------

HEALTHY = [
    ("paper", 0.25, 64), ("paper", 0.5, 64), ("paper", 0.25, 112), ("paper", 0.25, 224),
    ("source", 0.25, 64), ("source", 0.5, 64), ("source", 0.25, 112), ("source", 0.25, 224),
]  # fmt: skip


@pytest.mark.parametrize("preset, width, size", HEALTHY)
def test_presets_that_train_are_not_complained_about(preset, width, size):
    count = 64 if size < 224 else 32
    assert names(of_config(config(preset, width=width, size=size, seed=1), count=count)) == []


@pytest.mark.parametrize("preset", ["paper", "source"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nets_that_train_keep_their_distance_from_the_limits(preset, seed):
    size = measured(preset, seed=seed)
    assert min(row.differs for row in size.rows) > MARGIN * findings.ALIKE
    assert size.pace > MARGIN * findings.SLOW
    assert size.loss < math.log(10) + findings.EXCESS / MARGIN


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "preset", ["paper/unit-input", "paper/sigma-0.03/unit-input", "paper/sigma-0.03/unscaled-sigma"]
)
def test_nets_that_do_not_train_lie_beyond_a_limit(preset, seed):
    size = measured(preset, seed=seed)
    assert min(row.differs for row in size.rows) < findings.ALIKE / MARGIN


def test_limits_of_biases_and_of_the_first_loss():
    assert measured("paper/zero-biases").spread < findings.FAINT / MARGIN
    assert measured("paper/sigma-0.03/zero-biases").spread > findings.FAINT * MARGIN
    assert measured("paper/he-init").loss > math.log(10) + findings.EXCESS * MARGIN


BROKEN = {
    "paper/unit-input": "pixel scale",  # sigma 0.01 and pixels in 0..1
    "paper/sigma-0.03/unit-input": "pixel scale",
    "paper/zero-biases": "zero biases",
    "paper/unscaled-sigma": "sigma against fan-in",
    "paper/sigma-0.03/unscaled-sigma": "sigma against fan-in",
    "paper/lrn-over-size": "alpha's convention",  # five times too small
    "paper/tanh": "saturated units",
    "paper/rate-outside": "rate outside the velocity",
    "source/unit-input": "pixel scale",
}


@pytest.mark.parametrize("preset", BROKEN)
def test_presets_that_are_known_to_fail_are_named(preset):
    result = of_config(config(preset, seed=2))
    assert names(result) == [BROKEN[preset]], result
    (finding,) = result.findings
    assert finding.seen and finding.why and finding.remedy


@pytest.mark.parametrize("preset", ["paper", "source"])
@pytest.mark.parametrize("width, seed", [(0.125, 0), (0.25, 1), (0.5, 2)])
def test_a_rate_that_overshoots(preset, width, seed):
    usual = of_config(config(preset, width=width, seed=seed))
    assert names(usual) == []
    assert max(usual.losses) - usual.losses[0] < findings.RISE_ON_HALVES / MARGIN
    high = of_config(config(preset, width=width, rate=0.1, seed=seed))
    if width > 0.2:  # narrower nets may bear it
        assert names(high) == ["learning rate too high"]
        assert max(high.losses) - high.losses[0] > findings.RISE_ON_HALVES * MARGIN


def test_a_rate_that_is_too_low_and_weights_that_are_too_large():
    assert names(of_config(config(rate=1e-6))) == ["learning rate too low"]
    large = of_config(config("paper/he-init"))
    assert "pixel scale" in names(large)
    assert "dropout's form" in names(of_config(config("paper/inverted-dropout")))


def test_noise_stands_in_for_images(splits):
    """Where there is no pack, sizes are those of images, nearly; pictographs are darker."""
    settings = config(classes=3)
    own = of_config(settings, splits["train"]).layers
    other = of_config(settings).layers
    for row, noise in zip(own, other, strict=True):
        assert row.layer == noise.layer and row.signal == pytest.approx(noise.signal, rel=0.5)


# --- nets of any kind -----------------------------------------------------------------------------


def test_a_healthy_net_of_modules(batch):
    net = small_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    result = alexnet.diagnose(net, *batch)
    assert names(result) == [] and len(result.layers) == 3
    assert result.loss == pytest.approx(math.log(10), abs=0.3)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training and all(p.grad is None for p in net.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_labels_that_count_from_one(batch):
    x, labels = batch
    assert names(alexnet.diagnose(small_net(), x, labels + 1)) == ["labels off by one"]
    assert names(alexnet.diagnose(small_net(), x, labels - 1)) == ["labels off by one"]
    assert names(alexnet.diagnose(small_net(), x, labels * 9)) == ["labels out of range"]
    assert names(alexnet.diagnose(small_net(), x, labels * 0)) == ["one class in the batch"]
    many, of_four = x.repeat(2, 1, 1, 1), torch.arange(128) % 3 + 1  # output 0 is never right
    assert names(alexnet.diagnose(small_net(classes=4), many, of_four)) == ["labels off by one"]


def test_softmax_before_cross_entropy(batch):
    result = alexnet.diagnose(small_net(nn.Softmax(1)), *batch)
    assert names(result) == ["softmax before cross-entropy"]
    assert "1.46 nats" in result.findings[0].why  # log(9 + e) - 1
    assert names(alexnet.diagnose(small_net(nn.LogSoftmax(1)), *batch)) == []


def test_alpha_of_torchs_normalization(batch):
    def net(*settings):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 16, 5, 2), nn.ReLU(), nn.LocalResponseNorm(*settings), nn.Flatten(),
            nn.Linear(16 * 14 * 14, 10),
        )  # fmt: skip

    result = alexnet.diagnose(net(5, 1e-4, 0.75, 2.0), *batch)
    assert names(result) == ["alpha's convention"] and "2e-05" in result.findings[0].seen
    assert names(alexnet.diagnose(net(5, 5e-4, 0.75, 2.0), *batch)) == []  # the text's
    assert names(alexnet.diagnose(net(5, 1e-4, 0.75, 1.0), *batch)) == []  # Caffe's own net


class Dropped(nn.Module):
    """A net with a dropout of its own."""

    def __init__(self, drop):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(3 * 32 * 32, 200), nn.Linear(200, 10)
        self.drop = drop

    def forward(self, x):
        return self.head(self.drop(F.relu(self.body(x.flatten(1))), self.training))


def _forgets_the_factor(x, training):
    return x * (torch.rand_like(x) < 0.5) if training else x


def test_dropouts_form(batch):
    right = Dropped(lambda x, training: F.dropout(x, 0.5, training))
    assert names(alexnet.diagnose(right, *batch)) == []
    wrong = alexnet.diagnose(Dropped(_forgets_the_factor), *batch)
    assert names(wrong) == ["dropout's form"] and "0.5" in wrong.findings[0].seen
    always = Dropped(lambda x, training: F.dropout(x, 0.5))
    assert names(alexnet.diagnose(always, *batch)) == ["dropout in evaluation"]


def test_dead_and_saturated_units(batch):
    net = small_net()
    nn.init.constant_(net[4].bias, -100.0)
    assert "dead units" in names(alexnet.diagnose(net, *batch))
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 64), nn.Tanh(), nn.Linear(64, 10))
    assert names(alexnet.diagnose(net, *batch)) == []
    result = alexnet.diagnose(net, 100 * batch[0], batch[1])
    assert "saturated units" in names(result)
    assert result.layers[0].saturated > 0.9 and result.layers[1].saturated is None


def test_constant_predictions_of_a_trained_net(batch):
    net = small_net()
    nn.init.constant_(net[-1].bias, 0.0)
    net[-1].bias.data[3] = 100.0
    result = alexnet.diagnose(net, *batch, trained=True)
    assert names(result) == ["constant predictions"] and "class 3" in result.findings[0].seen


def test_nets_of_torchvision(batch):
    torchvision = pytest.importorskip("torchvision")
    x, labels = images.stand_ins(presets.Recipe(), 64, 32, 10)
    x = x / x.std()
    torch.manual_seed(0)
    known = torchvision.models.alexnet(num_classes=10)
    assert names(alexnet.diagnose(known, x, labels)) == []
    torch.manual_seed(0)
    residual = torchvision.models.resnet18(num_classes=10)
    statistics = residual.bn1.running_mean.clone()
    adam = torch.optim.Adam(residual.parameters(), 1e-3)
    assert names(alexnet.diagnose(residual, x, labels, optimizer=adam)) == []
    assert torch.equal(statistics, residual.bn1.running_mean) and not adam.state


@pytest.mark.parametrize(
    "change, said",
    [
        ({"images": [1, 2]}, "images are list: give a tensor"),
        ({"images": torch.zeros(4, 3, 32, 32, dtype=torch.uint8)}, "as float"),
        ({"images": torch.full((4, 3, 32, 32), math.nan)}, "hold NaN or infinity"),
        ({"images": torch.zeros(1, 3, 32, 32)}, "two or more"),
        ({"labels": torch.zeros(4, 10)}, "one class number an image"),
        ({"images": torch.zeros(4, 1, 32, 32)}, "the net fails on images of shape"),
        ({"model": nn.Flatten()}, "no parameters"),
        ({"model": nn.Conv2d(3, 8, 3)}, r"outputs are \(N, classes\)"),
        ({"model": small_net().requires_grad_(False)}, "no parameter of the model learns"),
    ],
)
def test_bad_input_is_named(change, said):
    given = {"model": small_net(), "images": torch.randn(4, 3, 32, 32)}
    given |= {"labels": torch.arange(4)} | change
    with pytest.raises(InputError, match=said):
        alexnet.diagnose(**given)


# --- sizes ----------------------------------------------------------------------------------------


def test_sizes_against_their_definitions(batch):
    x, labels = batch
    net = small_net()
    rows = diagnosis.layer_sizes(net, x, labels, rate=0.1)
    hidden = net[:4](x)
    loss = F.cross_entropy(net(x), labels)
    (gradient,) = torch.autograd.grad(loss, [net[4].weight])
    rms = lambda t: float(t.detach().square().mean().sqrt())  # noqa: E731
    row = rows[1]
    assert row["layer"] == "4" and row["signal"] == pytest.approx(rms(hidden), rel=1e-4)
    assert row["differs"] == pytest.approx(rms(hidden - hidden.mean(0)) / rms(hidden), rel=1e-4)
    assert row["dead"] == pytest.approx(float((hidden == 0).all(0).float().mean()))
    assert row["gradient"] == pytest.approx(rms(gradient), rel=1e-4)
    assert row["update"] == pytest.approx(0.1 * rms(gradient) / rms(net[4].weight), rel=1e-4)
    assert row["gain"] == pytest.approx(rms(net[4].weight) * (16 * 49) ** 0.5, rel=1e-4)
    json.dumps(rows)


def test_columns_of_a_net_count_as_one_layer():
    rows = measured("paper").rows
    assert [row.layer for row in rows] == [row.name for row in presets.get("paper").layers]
    assert measured("paper/one-column").rows[0].layer == "conv1"


def test_biases_that_give_classes_their_frequency():
    logits, labels = torch.randn(64, 5) * 3, torch.arange(64) % 3
    z = logits + sizes.fitted_biases(logits, labels)
    counts = torch.bincount(labels, minlength=5) / 64
    torch.testing.assert_close(z.softmax(1).mean(0), counts, atol=1e-3, rtol=0)


# --- the archive ----------------------------------------------------------------------------------


def test_the_best_profile_of_the_archive_is_cited(runs):
    evidence._arms.cache_clear()
    assert evidence.cite("unit-input") == ""
    for profile, left in (("embedded", None), ("tiny-imagenet-cpu", 7)):
        for arm, steps in (("unit-input", left), ("sigma-0.03", 5)):
            record = {"experiment": "recipe", "arm": arm, "seed": 0, "data": {}, "provenance": {}}
            record["metrics"] = {"left_at_step": steps, "steps": 900}
            results.save(record, results.ARCHIVE / profile)
    evidence._arms.cache_clear()
    said = "1 of 1 runs leave chance within 900 steps"
    expected = f"Archive, recipe, tiny-imagenet-cpu: {said} with this change, {said} without."
    assert evidence.cite("unit-input") == expected
    evidence._arms.cache_clear()


# --- runs -----------------------------------------------------------------------------------------


def test_features_are_those_of_evaluation():
    net = AlexNet("paper", 3, 0.1, 64).train()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(net.features(x), net.features(x)) and net.training
    assert torch.equal(net.features(x), net.eval().features(x))


def _log(folder, loss, steps=60):
    folder.mkdir()
    rows = ({"kind": "step", "step": n + 1, "loss": loss} for n in range(steps))
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_run_that_ends_at_chance(splits, tmp_path):
    pack, settings = splits["train"], configure(splits)
    assert command.chance(settings, pack) == pytest.approx(math.log(3))
    bad, good = _log(tmp_path / "bad", math.log(3)), _log(tmp_path / "good", 0.9)
    line = command.chance_line(bad, tmp_path / "packs", settings, pack)
    assert f"alexnet diagnose {bad} --data {tmp_path / 'packs'}" in line and "\n" not in line
    assert command.chance_line(good, tmp_path / "packs", settings, pack) is None
    frequent = SimpleNamespace(labels=pack.labels * 0)  # of one class nothing is to be learned
    assert command.chance(settings, frequent) == 0


def _alexnet(*arguments):
    from alexnet.cli import main

    return main(["diagnose", *map(str, arguments)])


def test_training_that_ends_at_chance_says_so_and_what_to_do(packs72, tmp_path, capsys):
    from alexnet.cli import main

    out = tmp_path / "run"
    small = ["--width", "0.1", "--steps", "2", "--preset", "paper/unit-input", "--batch-size", "8"]
    assert main(["train", "--data", str(packs72), "--out", str(out), *small]) == 0
    *_, line = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{out}: ended at chance: loss ")
    command_line = line.rpartition("alexnet diagnose ")[2]
    assert _alexnet(*command_line.split(), "--json") == 0
    found = [finding["name"] for finding in json.loads(capsys.readouterr().out)["findings"]]
    assert "pixel scale" in found and "ended at chance" in found


def test_the_command_on_a_run(straight, packs72, capsys):
    assert _alexnet(straight, "--data", packs72, "--images", 16, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["layers"][0]["layer"] == "conv1"
    assert shown["net"] == str(straight) and isinstance(shown["findings"], list)


def test_the_command_on_a_preset(packs72, capsys):
    small = ("--width", 0.1, "--images", 16)
    assert _alexnet("--preset", "paper/unit-input", "--data", packs72, *small) == 0
    shown = capsys.readouterr().out
    assert "1. pixel scale: " in shown and "Why: " in shown and "Archive, recipe, " in shown
    lines = (small, ("--image-size", 64, "--classes", 10))
    assert _alexnet("--preset", "paper", *lines[0], *lines[1]) == 0
    assert "Nothing that is known to keep a net from training was found." in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["nowhere"], "nowhere does not exist"),
        (["RUN", "--preset", "paper"], "not both"),
        (["RUN", "--width", "0.5"], "leave out --width"),
        (["--preset", "papyrus"], "there is no preset 'papyrus'"),
        (["--data", "nowhere"], "nowhere"),
        (["--data", "PACKS", "--classes", "7"], "leave out --classes"),
        (["--images", "1"], "1 is not a whole number from 2"),
    ],
)
def test_bad_commands_get_one_line(arguments, said, straight, packs72, capsys):
    places = {"RUN": straight, "PACKS": packs72}
    try:
        status = _alexnet(*(places.get(word, word) for word in arguments))
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and said in error and len(error.splitlines()) == 1


# --- the page -------------------------------------------------------------------------------------


def test_the_snippets_of_the_page(capsys):
    """Its commands and its Python run; what it shows is what they print, but for rounding."""
    page = (results.HERE / "book" / "diagnose.md").read_text(encoding="utf-8")
    blocks = {kind: re.findall(rf"```{kind}\n(.*?)```", page, re.S) for kind in KINDS}
    (python,), (bash,), (text,) = (blocks[kind] for kind in KINDS)
    torch.manual_seed(0)
    exec(python, {})
    assert "softmax before cross-entropy" in capsys.readouterr().out
    assert bash.split()[:2] == ["alexnet", "diagnose"] and _alexnet(*bash.split()[2:]) == 0
    printed = capsys.readouterr().out
    for line in filter(None, text.splitlines()):
        assert line.split()[0] in printed
    shown, computed = (re.search(r"^fc8 .*$", out, re.M)[0].split() for out in (text, printed))
    numbers = [[float(cell.rstrip("%")) for cell in cells[1:]] for cells in (shown, computed)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.2)


def test_the_page_names_each_finding():
    page = (results.HERE / "book" / "diagnose.md").read_text(encoding="utf-8")
    source = "".join(path.read_text() for path in Path(diagnosis.__file__).parent.glob("*.py"))
    constants = {"ONE_CLASS": findings.ONE_CLASS}
    named = re.findall(r"\bFinding\(\s*(?:\"([^\"]+)\"|([A-Z_]+)),", source)
    assert len(named) > 12
    for text, constant in named:
        name = text or constants[constant]
        if name != "signal vanishes":  # what is left where no cause was found
            assert name.replace("learning rate ", "") in page, name
