"""A new layer with state, added in a copy of the repository: batch norm in place of response
normalization. What is added is counted, and every way that a net's state takes keeps it.

`python -m tests.test_adding_a_layer PACKS FOLDER`, in the copy, trains and measures; the tests read
its report.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet import AlexNet, evaluation, export
from alexnet.data.loader import Images
from alexnet.data.pack import open_splits
from alexnet.errors import InputError
from alexnet.training import load_run
from tests.survival import ROOT, configure, job, lost, run

ROW = '''@dataclass(frozen=True)
class BatchNorm(Operation):
    """Each map to mean 0 and variance 1 over the batch (Ioffe and Szegedy, 2015)."""

    momentum: NotNegative = 0.1
    epsilon: NotNegative = 1e-5
    state: ClassVar = (
        State("gain", 1.0, "gain"),
        State("bias", 0.0, "bias"),
        State("running_mean"),
        State("running_variance", 1.0),
    )

    def apply(self, x, module, keys):
        import torch.nn.functional as F

        mean, variance = module.running_mean, module.running_variance
        gain, bias = (value.to(mean.dtype) for value in (module.gain, module.bias))
        training = module.training
        return F.batch_norm(x, mean, variance, gain, bias, training, self.momentum, self.epsilon)


'''
VARIANT = """    "batch-norm": _instead(ops.LRN, ops.BatchNorm()),
"""
# the places that are touched: a file, the line that what is new stands before, and what is new;
# an arm of the ablations is one more, a row of their table
EDITS = [
    ("alexnet/presets/operations.py", "RELU, POOL, DROPOUT = ", ROW),
    ("alexnet/presets/variants.py", '    "no-decay": ', VARIANT),
]
PRESET = "paper/batch-norm/constant-rate"
STATE = ("gain", "bias", "running_mean", "running_variance")


@pytest.fixture(scope="module")
def report(packs72, tmp_path_factory) -> dict[str, Any]:
    """What the copy with the new layer measures."""
    copy = tmp_path_factory.mktemp("copy")
    for part in ("alexnet", "kernels", "tests"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file, line, new in EDITS:
        text = (copy / file).read_text()
        assert text.count(line) == 1
        (copy / file).write_text(text.replace(line, new + line))
    out = tmp_path_factory.mktemp("runs")
    environment = os.environ | {"PYTHONPATH": f"{copy}{os.pathsep}{copy / 'kernels'}"}
    command = [sys.executable, "-m", "tests.test_adding_a_layer", str(packs72), str(out)]
    done = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_it_takes_four_places_at_most():
    assert len(EDITS) + len(["an arm"]) <= 4


def test_it_learns_and_its_state_changes_in_training_alone(report):
    assert report["finite gradients"] and report["changed by training"]
    assert not report["changed by evaluation"]
    assert report["kinds"] == {"gain": 4, "bias": 4 + 15, "weight": 16}


def test_its_state_is_counted_and_in_the_layout_of_one_device(report):
    assert report["state"] == {
        f"conv{i}.batch_norm.{name}": maps for i, maps in ((1, [6]), (2, [16])) for name in STATE
    }
    assert report["parameters"] == report["counted"]


def test_the_merged_layout_comes_back_and_is_checked(report):
    assert report["reloaded"]
    assert "lack conv2.batch_norm.running_mean" in report["refused"]["lacking"]
    assert "hold conv3.batch_norm.gain" in report["refused"]["surplus"]
    assert "conv1.batch_norm.running_variance has shape (2,)" in report["refused"]["misshapen"]
    assert report["unchanged"]


def test_statistics_stay_in_float32_where_the_net_computes_in_bfloat16(report):
    assert report["bf16"] == {"gain": "torch.bfloat16", "running_mean": "torch.float32"}


@pytest.mark.parametrize("ranks", ["one process", "two ranks"])
def test_a_run_that_is_killed_and_resumed_is_the_same_run(report, ranks):
    assert report["killed"][ranks]
    assert report["lost"][ranks] == "nothing"
    assert report["apart"][f"{ranks}, resumed"] == 0


def test_two_ranks_are_one_process(report):
    assert report["apart"]["two ranks"] <= 1e-5


def test_a_run_that_is_loaded_has_learned_statistics(report):
    assert report["learned"]


def test_onnx_computes_the_same(report):
    if report["apart"]["onnx"] is None:
        pytest.skip("the extra `export` is not installed")
    assert report["apart"]["onnx"] <= 1e-4


# --- in the copy ---


def network() -> AlexNet:
    torch.manual_seed(0)
    return AlexNet(PRESET, 3, 1 / 16, 64)


def net_alone() -> dict[str, Any]:
    """What one net shows, without a run."""
    net, images = network(), 60 * torch.randn(4, 3, 64, 64)
    initial = net.export_merged()
    net(images).square().sum().backward()
    trained = net.export_merged()
    net.eval()(images)
    kinds = list(net.parameter_kinds().values())
    report: dict[str, Any] = {
        "finite gradients": all(bool(p.grad.isfinite().all()) for p in net.parameters()),
        "changed by training": differ(initial, trained),
        "changed by evaluation": differ(trained, net.export_merged()),
        "kinds": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "state": {k: list(v.shape) for k, v in trained.items() if "batch_norm" in k},
        "parameters": sum(p.numel() for p in net.parameters()),
        "counted": sum(row.parameters for row in net.table),
    }
    other = network().eval()
    other.load_merged(trained)
    report["reloaded"] = torch.equal(other(images), net(images))
    wrong = {
        "lacking": {k: v for k, v in trained.items() if k != "conv2.batch_norm.running_mean"},
        "surplus": trained | {"conv3.batch_norm.gain": torch.ones(24)},
        "misshapen": trained | {"conv1.batch_norm.running_variance": torch.ones(2)},
    }
    report["refused"] = {}
    for name, weights in wrong.items():
        try:
            other.load_merged({key: value + 1 for key, value in weights.items()})
        except InputError as error:
            report["refused"][name] = str(error)
    report["unchanged"] = not differ(other.export_merged(), trained)
    half = other.to(torch.bfloat16).stages("conv1")[0].tensors()
    assert other(images.bfloat16()).isfinite().all()
    report["bf16"] = {n: str(half[f"operations.1.{n}"].dtype) for n in ("gain", "running_mean")}
    return report


def differ(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(value, two[name]) for name, value in one.items())


def measure(packs: Path, out: Path) -> dict[str, Any]:
    """Train undisturbed, killed and resumed, and on two ranks; compare how the nets evaluate."""
    config = configure(packs, PRESET, width=1 / 16, epochs=2.0)
    worlds = {"one process": 1, "two ranks": 2}
    first, then = [], []
    for name, world in worlds.items():
        folder, fault = out / f"{name}, resumed", {"rank": 0, "kind": "step", "at": 6}
        first += [job(packs, out / name, world, config)]
        first += [job(packs, folder, world, config, fault=fault)]
        then += [job(packs, folder, world, config, resume=True)]
    outcomes = run(*first, *then)
    straight, killed, resumed = outcomes[0:4:2], outcomes[1:4:2], outcomes[4:]
    assert all(set(each["statuses"]) == {0} for each in (*straight, *resumed)), (straight, resumed)
    test, report = open_splits(packs)["test"], net_alone()
    predicted = {}
    for folder in sorted(out.iterdir()):
        net, augment, _ = load_run(folder)
        predicted[folder.name] = evaluation.predict(net, test, augment)[0]
    expected = predicted["one process"]
    apart = {name: distance(each, expected) for name, each in predicted.items()}
    for name in worlds:
        apart[f"{name}, resumed"] = distance(predicted[f"{name}, resumed"], predicted[name])
    net, augment, _ = load_run(out / "one process")
    (images,) = Images(test, torch.device("cpu"), resident=False).of([torch.arange(len(test))])
    (images,) = augment.views(images)
    apart["onnx"] = onnx(net, out / "net.onnx", images, expected)
    statistics = {k: v for k, v in net.export_merged().items() if "running" in k}
    return report | {
        "killed": {n: each["statuses"][0] == -9 for n, each in zip(worlds, killed, strict=True)},
        "lost": {name: lost(out / f"{name}, resumed", out / name) for name in worlds},
        "apart": apart,
        "learned": all(float(v.var()) > 0 for v in statistics.values()),
    }


def distance(probabilities: torch.Tensor, expected: torch.Tensor) -> float:
    return float((probabilities - expected).abs().max())


def onnx(net: AlexNet, file: Path, images: torch.Tensor, expected: torch.Tensor) -> float | None:
    """The distance of what the exported file computes; None without the packages."""
    try:
        import onnxruntime
    except ImportError:
        return None
    export.write(net, file, {})
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    return distance(torch.from_numpy(logits).softmax(1), expected)


if __name__ == "__main__":
    print(json.dumps(measure(*map(Path, sys.argv[1:]))))
