"""Nets for other programs: each file is read, or run, by the program that it is for, and computes
what the net does."""

import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import alexnet_kernels as kernels
from alexnet import AlexNet, export
from alexnet.errors import InputError

ABOUT = {"preset": "paper", "width": "0.125"}


def small(preset="paper"):
    torch.manual_seed(5)
    net = AlexNet(preset, num_classes=7, width=1 / 8, image_size=64)
    with torch.no_grad():
        for parameter in net.parameters():  # logits that differ by image
            parameter.mul_(3)
    return net


def test_safetensors_hold_the_merged_layout_and_what_the_input_is(tmp_path):
    net = small()
    export.write(net, tmp_path / "deep" / "net.safetensors", ABOUT)
    merged = net.export_merged()
    written = load_file(tmp_path / "deep" / "net.safetensors")
    assert written.keys() == merged.keys()
    assert all(torch.equal(written[name], value) for name, value in merged.items())
    with safe_open(tmp_path / "deep" / "net.safetensors", "pt") as file:
        assert file.metadata().items() >= ABOUT.items() and "mean image" in file.metadata()["input"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["net.safetensors"]


MORE = [
    pytest.param(preset, marks=pytest.mark.slow)
    for preset in ("paper", "paper/no-overlap", "caffe", "four-layer")
]


@pytest.mark.parametrize("preset", ["source", *MORE])
def test_onnx_runs_elsewhere_with_the_same_logits_for_any_number_of_images(tmp_path, preset, capfd):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    net = small(preset)
    export.write(net, tmp_path / "net.onnx", ABOUT)
    assert capfd.readouterr() == ("", "")
    session = onnxruntime.InferenceSession(
        tmp_path / "net.onnx", providers=["CPUExecutionProvider"]
    )
    assert session.get_modelmeta().custom_metadata_map.items() >= ABOUT.items()
    for count in (1, 2, 7):
        images = 50 * torch.randn(count, 3, 64, 64)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            expected = net.eval()(images)
        torch.testing.assert_close(
            torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
        )


# Loads a program in a process without this package, and prints its logits' sum.
ELSEWHERE = """
import sys, torch
sys.modules["alexnet"] = sys.modules["alexnet_kernels"] = None
load = torch.jit.load if sys.argv[1].endswith(".pt") else lambda f: torch.export.load(f).module()
images = 50 * torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(1))
print(float(load(sys.argv[1])(images).abs().sum()))
"""


@pytest.mark.filterwarnings("ignore")  # torch's, of tracing
@pytest.mark.parametrize("way", ["export", "strict", "trace"])
def test_what_torch_exports_and_traces_loads_without_the_package(tmp_path, way):
    net, example = small("source").eval(), (50 * torch.randn(2, 3, 64, 64),)
    if way == "trace":
        file = tmp_path / "net.pt"
        torch.jit.trace(net, example).save(file)
    else:
        file = tmp_path / "net.pt2"
        batch = ({0: torch.export.Dim("N")},)
        program = torch.export.export(net, example, dynamic_shapes=batch, strict=way == "strict")
        torch.export.save(program, file)
    images = 50 * torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = float(net(images).abs().sum())
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, file], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(expected, rel=1e-4)


def test_a_file_that_computes_something_else_is_not_left_behind(tmp_path, monkeypatch):
    """As when an exporter overlooks an argument of an operator."""
    monkeypatch.setattr(AlexNet, "load_merged", lambda self, state: None)
    with pytest.raises(
        RuntimeError,
        match=r"computes other logits than the net, by .* of the largest; nothing was written",
    ):
        export.write(small(), tmp_path / "net.safetensors", ABOUT)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").touch()
    for name, reason in (
        ("net.pt", r"end in .safetensors or .onnx"),
        ("folder.onnx", "is a folder"),
        ("file/net.onnx", "cannot write"),
    ):
        with pytest.raises(InputError, match=reason):
            export.write(small(), tmp_path / name, ABOUT)

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    remedy = r"needs onnxruntime: pip install 'alexnet-reproduced\[export\]'"
    with pytest.raises(InputError, match=remedy):
        export.write(small(), tmp_path / "net.onnx", ABOUT)
    assert kernels.mode() == "auto" and not (tmp_path / "net.onnx").exists()
