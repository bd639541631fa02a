"""Published weights: each kind of file, written as others write it, gives the net that its own
program computes; and what is no such file is refused in one line."""

import json
import os
import pickle
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from alexnet import AlexNet, cli, imports, presets
from alexnet.errors import InputError
from alexnet.experiments import figure3, page
from alexnet.training import load_run
from tests import published
from tests.images import photograph

NARROW = published.weights(classes=10, share=8)
TINY = published.weights(classes=3, share=8, side=1)  # for images of 67 pixels
FREE = {"mean": "123,117,104"}


def alexnet(*arguments):
    return cli.main(list(map(str, arguments)))


def write(folder, layers, kind, **how):
    """A file of these weights, of a kind."""
    file = folder / f"net{kind}"
    if kind == ".caffemodel":
        file.write_bytes(published.caffemodel(layers, **how))
    elif kind == ".onnx":
        onnx.save(published.zoo(layers, **how), str(file))
    elif kind == ".npy":
        published.write_npy(file, published.tensorflow(layers), **how)
    return file


def merged(layers, reorder=(2, 1, 0)):
    """The merged layout: conv1 reads red, green, blue."""
    state = {
        f"{name}.{part}": torch.from_numpy(values.copy())
        for name, pair in layers.items()
        for part, values in zip(("weight", "bias"), pair, strict=True)
    }
    state["conv1.weight"] = state["conv1.weight"][:, list(reorder)]
    return state


def reference(layers, images, pool_first=False):
    """Every layer's output by Caffe's definition, in float64, for images in BGR."""
    x, outputs = images.double(), {}
    for name, pair in layers.items():
        weight, bias = (torch.from_numpy(values).double() for values in pair)
        if name.startswith("fc"):
            x = x.flatten(1) @ weight.T + bias
        else:
            how = {"conv1": (4, 0), "conv2": (1, 2)}.get(name, (1, 1))
            groups = 2 if name in ("conv2", "conv4", "conv5") else 1
            x = F.conv2d(x, weight, bias, *how, groups=groups)
        if name != "fc8":
            x = x.clamp(min=0)

        def norm(x):
            padded = F.pad(x**2, (0, 0, 0, 0, 2, 2))
            sums = sum(padded[:, i : i + x.shape[1]] for i in range(5))
            return x / (1 + 1e-4 / 5 * sums) ** 0.75

        def pool(x):
            return F.max_pool2d(x, 3, 2, ceil_mode=True)

        if name in ("conv1", "conv2"):
            x = norm(pool(x)) if pool_first else pool(norm(x))
        x = pool(x) if name == "conv5" else x
        outputs[name] = x
    return outputs


def images(side, count=2):
    return 60 * torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def outputs(run, rgb):
    net = load_run(run)[0]
    names = [row.layer.name for row in net.table]
    return {name: net.features(rgb, name) for name in names[:-1]} | {names[-1]: net(rgb)}


def check(found, expected, tolerance=1e-4):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        off = (found[name] - value).abs().max() / value.abs().max()
        assert off < tolerance, f"{name}: {off:.1e}"


# --- what is computed ----------------------------------------------------------------------------


@pytest.mark.parametrize("share", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_the_zoos_graph_computes_what_onnxruntime_does_at_every_layer(tmp_path, share):
    runtime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    layers = published.weights(1000 // share, share)
    file = write(tmp_path, layers, ".onnx")
    summary = imports.import_weights(file, tmp_path / "run")
    assert summary["config"]["preset"] == "caffe/224-unpadded"
    assert summary["config"]["image_size"] == 224

    model, of = onnx.load(str(file)), {"conv1": "r3", "conv2": "r7", "conv3": "r9", "conv4": "r11"}
    of |= {"conv5": "r14", "fc6": "r18", "fc7": "r22", "fc8": "r24"}
    kinds = [onnx.helper.make_tensor_value_info(name, 1, None) for name in of.values()]
    model.graph.output.extend(kinds)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    bgr = images(224, 1)
    values = session.run(list(of.values()), {"data_0": bgr.numpy()})
    expected = {name: torch.from_numpy(value) for name, value in zip(of, values, strict=True)}
    check(outputs(tmp_path / "run", bgr.flip(1)), expected)


@pytest.mark.parametrize(
    ("pool_first", "preset"), [(False, "caffe"), (True, "caffe/pool-before-norm")]
)
@pytest.mark.parametrize("old", [False, True])
def test_a_caffe_model_computes_caffes_net_in_float64(tmp_path, old, pool_first, preset):
    file = write(tmp_path, NARROW, ".caffemodel", old=old, pool_first=pool_first)
    summary = imports.import_weights(file, tmp_path / "run")
    assert (summary["config"]["preset"], summary["config"]["image_size"]) == (preset, 227)
    bgr = images(227)
    expected = reference(NARROW, bgr, pool_first)
    found = outputs(tmp_path / "run", bgr.flip(1))
    check(found, expected)
    other = reference(NARROW, bgr, not pool_first)
    with pytest.raises(AssertionError, match="conv1"):
        check(found, other)


@pytest.mark.slow
def test_the_full_caffe_model_computes_caffes_net_in_float64(tmp_path):
    layers = published.weights()
    imports.import_weights(write(tmp_path, layers, ".caffemodel"), tmp_path / "run")
    bgr = images(227, 1)
    check(outputs(tmp_path / "run", bgr.flip(1)), reference(layers, bgr))


@pytest.mark.parametrize("opset", range(3, 13))
def test_each_opset_of_the_zoo_holds_the_same_net(tmp_path, opset):
    file = write(tmp_path, NARROW, ".onnx", opset=opset)
    summary = imports.import_weights(file, tmp_path / "run")
    assert summary["config"]["preset"] == "caffe/224-unpadded"
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in merged(NARROW).items())


def test_the_zoos_graph_at_227_pixels_is_caffes(tmp_path):
    file = write(tmp_path, NARROW, ".onnx", side=227)
    summary = imports.import_weights(file, tmp_path / "run")
    # where no window reaches over the border
    assert summary["config"]["preset"] == "caffe"
    bgr = images(227)
    check(outputs(tmp_path / "run", bgr.flip(1)), reference(NARROW, bgr))


def test_conv1_reads_red_green_blue(tmp_path):
    imports.import_weights(write(tmp_path, NARROW, ".caffemodel"), tmp_path / "run")
    red = torch.zeros(1, 3, 227, 227)
    red[:, 0] = images(227, 1)[:, 0]
    found = outputs(tmp_path / "run", red)["fc8"]
    check({"fc8": found}, {"fc8": reference(NARROW, red.flip(1))["fc8"]})
    with pytest.raises(AssertionError):
        check({"fc8": found}, {"fc8": reference(NARROW, red)["fc8"]})


def test_dropouts_factor_is_in_training_not_at_test_time(tmp_path):
    """Caffe divides by 0.5 in training. The text's form would halve fc6 and fc7."""
    imports.import_weights(write(tmp_path, TINY, ".caffemodel"), tmp_path / "run", image_size=67)
    bgr = images(67)
    found, expected = outputs(tmp_path / "run", bgr.flip(1)), reference(TINY, bgr)
    for name in ("fc6", "fc7"):
        ratio = found[name].sum() / expected[name].sum()
        assert ratio == pytest.approx(1, abs=1e-4), name
    (stage, _), x = load_run(tmp_path / "run")[0].stages("fc6"), torch.rand(50, 32)
    at_test, kept = stage(x, None), stage.train()(x, torch.arange(50))
    torch.testing.assert_close(kept, torch.where(kept > 0, 2 * at_test, 0))
    assert (kept > 0).sum() / (at_test > 0).sum() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_fc6_reads_maps_one_after_the_other(tmp_path, protocol):
    """The TensorFlow port has a place's maps side by side."""
    file = write(tmp_path, NARROW, ".npy", protocol=protocol)
    imports.import_weights(file, tmp_path / "run")
    weights, expected = load_file(tmp_path / "run" / "weights.safetensors"), merged(NARROW)
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    naive = torch.from_numpy(published.tensorflow(NARROW)["fc6"][0].T.copy())
    assert not torch.equal(weights["fc6.weight"], naive)


def test_an_array_file_with_named_weights_and_biases(tmp_path):
    pairs = published.tensorflow(NARROW).items()
    named = {name: {"weights": w, "biases": b} for name, (w, b) in pairs}
    published.write_npy(tmp_path / "net.npy", named)
    imports.import_weights(tmp_path / "net.npy", tmp_path / "run", preset="caffe/pool-before-norm")
    assert load_run(tmp_path / "run")[2].preset == "caffe/pool-before-norm"


# --- the mean ------------------------------------------------------------------------------------

SLOPES = np.stack([np.full((72, 72), 104.0), np.full((72, 72), 117.0), np.full((72, 72), 123.0)])
SLOPES[0] += np.arange(72)[:, None] / 10  # blue grows downwards, red to the right
SLOPES[2] += np.arange(72) / 10


def write_mean(folder, how):
    if how == "binaryproto":
        (folder / "mean.binaryproto").write_bytes(published.blob(SLOPES[None], old=True))
        return folder / "mean.binaryproto"
    array = SLOPES if how == "planes" else SLOPES[::-1].transpose(1, 2, 0)
    np.save(folder / "mean.npy", array)
    return folder / "mean.npy"


@pytest.mark.parametrize("how", ["binaryproto", "planes", "pixels"])
def test_the_mean_image_is_in_rgb_and_cropped_with_the_image(tmp_path, how):
    mean = str(write_mean(tmp_path, how))
    file = write(tmp_path, TINY, ".caffemodel")
    imports.import_weights(file, tmp_path / "run", image_size=67, mean=mean)
    _, augment, _ = load_run(tmp_path / "run")
    rgb = SLOPES[::-1].transpose(1, 2, 0)
    np.testing.assert_allclose(np.load(tmp_path / "run" / "mean.npy"), rgb, rtol=1e-6)
    (view,) = augment.views(torch.from_numpy(np.round(rgb).astype(np.uint8))[None])
    assert view.abs().max() < 0.51
    black = augment.view(torch.zeros(1, 72, 72, 3, dtype=torch.uint8), 5, 0, False)[0]
    np.testing.assert_allclose(-black[0, 0], 123 + np.arange(67) / 10, rtol=1e-5)  # red
    np.testing.assert_allclose(-black[2, :, 0], 104 + np.arange(5, 72) / 10, rtol=1e-5)  # blue


def test_the_mean_color_without_a_mean_image(tmp_path):
    imports.import_weights(write(tmp_path, NARROW, ".caffemodel"), tmp_path / "run")
    mean = np.load(tmp_path / "run" / "mean.npy")
    assert mean.shape == (256, 256, 3) and (mean == [123, 117, 104]).all()
    file = write(tmp_path, NARROW, ".caffemodel")
    imports.import_weights(file, tmp_path / "own", mean="1, 2.5,3")
    assert (np.load(tmp_path / "own" / "mean.npy") == [1, 2.5, 3]).all()


# --- a run folder like any other -----------------------------------------------------------------


def test_an_imported_run_evaluates_exports_and_shows_its_kernels(tmp_path, packs72, splits, capsys):
    file, run = write(tmp_path, TINY, ".caffemodel"), tmp_path / "run"
    lines = [f"{name} word, other word" for name in ("n00000001", "n00000002", "n00000003")]
    (tmp_path / "words.txt").write_text("\n".join(lines))
    options = ("--image-size", 67, "--mean", write_mean(tmp_path, "binaryproto"))
    assert alexnet("import", file, run, *options) == 0
    out = capsys.readouterr().out
    assert "others' weights" in out and "preset caffe, 3 classes, 67 of 72 pixels" in out
    assert alexnet("evaluate", run, "--data", packs72) == 0
    assert "top-1 error" in capsys.readouterr().out
    assert alexnet("export", run, tmp_path / "net.safetensors") == 0
    exported = load_file(tmp_path / "net.safetensors")
    assert all(torch.equal(exported[name], value) for name, value in merged(TINY).items())

    net = load_run(run)[0]
    kernels = figure3.columns(page.eight_bits(net.export_merged()["conv1.weight"]), 2)
    assert kernels.shape == (2, 6, 11, 11, 3)
    figure3.measure_columns(kernels, 10)

    again = ("--image-size", 67, "--classes", tmp_path / "words.txt")
    assert alexnet("import", file, tmp_path / "named", *again, "--mean", "9,9,9") == 0
    assert json.loads((tmp_path / "named" / "classes.json").read_text())[0] == "n00000001"
    assert json.loads((tmp_path / "named" / "names.json").read_text())[0] == "word, other word"
    # the pack has other classes than those
    assert alexnet("evaluate", tmp_path / "named", "--data", packs72) == 2


def test_an_imported_run_predicts_and_hands_its_license_on(tmp_path, capsys):
    file, run = write(tmp_path, TINY, ".caffemodel"), tmp_path / "run"
    lines = [f"{name} word {i}, other word" for i, name in enumerate(("n01", "n02", "n03"))]
    (tmp_path / "words.txt").write_text("\n".join(lines).replace("n0", "n0000000"))
    classes = ("--classes", tmp_path / "words.txt")
    assert alexnet("import", file, run, "--image-size", 67, *classes) == 0
    photograph(90, 80).save(tmp_path / "photo.jpg")
    assert alexnet("export", run, tmp_path / "net.safetensors") == 0
    capsys.readouterr()
    tops = []
    for net in (run, tmp_path / "net.safetensors"):
        assert alexnet("predict", net, tmp_path / "photo.jpg", "--json") == 0
        (one,) = json.loads(capsys.readouterr().out)
        tops.append({row["class"]: row["probability"] for row in one["top"]})
        assert {row["name"][:4] for row in one["top"]} == {"word"}
    assert tops[0].keys() == {f"n0000000{i}" for i in (1, 2, 3)}
    assert tops[1] == pytest.approx(tops[0], abs=1e-5)
    with safe_open(tmp_path / "net.safetensors", "pt") as opened:
        assert opened.metadata()["license"] == imports.UNKNOWN


def test_an_imported_run_says_whose_weights_it_holds(tmp_path, monkeypatch):
    import hashlib

    file = write(tmp_path, NARROW, ".caffemodel")
    content = file.read_bytes()
    monkeypatch.setitem(imports.KNOWN, hashlib.sha1(content).hexdigest(), ("Someone's", "free"))
    summary = imports.import_weights(file, tmp_path / "run")
    origin, digest = summary["imported"], hashlib.sha256(content).hexdigest()
    assert (origin["known_as"], origin["license"]) == ("Someone's", "free")
    assert origin["sha256"] == summary["config"]["imported"] == digest
    assert (summary["ended"], summary["steps"], summary["diverged_at"]) == ("imported", 0, None)
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    assert (tmp_path / "run" / "license.txt").read_text() == "free\n"


def test_training_does_not_go_on_with_imported_weights_as_if_they_were_its_own(
    tmp_path, packs72, capsys
):
    file, run = write(tmp_path, TINY, ".caffemodel"), tmp_path / "run"
    imports.import_weights(file, run, image_size=67, mean=str(write_mean(tmp_path, "planes")))
    how = ("--data", packs72, "--preset", "caffe", "--width", 0.125, "--image-size", 67)
    assert alexnet("train", *how, "--out", run, "--resume", "--steps", 2) == 2
    assert "holds a run with" in capsys.readouterr().err
    # but begins with them
    how += ("--steps", 2, "--batch-size", 4)
    assert alexnet("train", *how, "--out", tmp_path / "tuned", "--init", run) == 0


# --- tensors in the merged layout ----------------------------------------------------------------


def test_what_was_exported_here_comes_back(tmp_path):
    import base64
    import io

    net = AlexNet("paper", 3, 1 / 8, 64)
    mean, array = np.full((72, 72, 3), 99, np.float32), io.BytesIO()
    np.save(array, mean)
    metadata = {"preset": "paper", "width": "0.125", "image_size": "64", "license": "mine"}
    metadata["mean"] = base64.b64encode(array.getvalue()).decode()
    metadata |= {"classes": '["a", "b", "c"]', "names": '["ape", "bee", "cat"]'}
    save_file(net.export_merged(), tmp_path / "net.safetensors", metadata)
    summary = imports.import_weights(tmp_path / "net.safetensors", tmp_path / "run")
    loaded, _, config = load_run(tmp_path / "run")
    assert (config.preset, config.width, config.image_size) == ("paper", 0.125, 64)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), loaded.parameters()))
    assert (np.load(tmp_path / "run" / "mean.npy") == mean).all()
    assert json.loads((tmp_path / "run" / "names.json").read_text()) == ["ape", "bee", "cat"]
    assert summary["imported"]["license"] == "mine"


@pytest.mark.parametrize("nested", [False, True])
def test_a_state_dict_says_nothing_of_its_net(tmp_path, nested):
    state = merged(NARROW, reorder=(0, 1, 2))
    torch.save({"state_dict": state} if nested else state, tmp_path / "net.pth")
    with pytest.raises(InputError, match="give --preset"):
        imports.import_weights(tmp_path / "net.pth", tmp_path / "run")
    with pytest.raises(InputError, match="give --mean"):
        imports.import_weights(tmp_path / "net.pth", tmp_path / "run", preset="caffe")
    given = {"preset": "caffe"} | FREE
    imports.import_weights(tmp_path / "net.pth", tmp_path / "rgb", **given)
    imports.import_weights(tmp_path / "net.pth", tmp_path / "bgr", bgr=True, **given)
    rgb, bgr = (load_file(tmp_path / name / "weights.safetensors") for name in ("rgb", "bgr"))
    assert torch.equal(rgb["conv1.weight"], state["conv1.weight"])
    assert torch.equal(bgr["conv1.weight"], state["conv1.weight"].flip(1))


def test_bfloat16_becomes_float32(tmp_path):
    state = {name: value.bfloat16() for name, value in merged(NARROW).items()}
    save_file(state, tmp_path / "net.safetensors")
    imports.import_weights(tmp_path / "net.safetensors", tmp_path / "run", preset="caffe", **FREE)
    assert load_file(tmp_path / "run" / "weights.safetensors")["fc8.bias"].dtype == torch.float32


# --- what is refused -----------------------------------------------------------------------------


def refused(capsys, file, *options):
    """The one line that a file is refused with; no run is left behind."""
    run = file.parent / "run"
    assert alexnet("import", file, run, *options) == 2
    out, line = capsys.readouterr()
    assert not out and line.count("\n") == 1 and line.startswith("alexnet: ") and file.name in line
    assert not run.exists() and not list(file.parent.glob(".*partial*"))
    return line


def torchvisions(folder, kind):
    first = torch.zeros(64, 3, 11, 11)
    file = folder / f"alexnet{kind}"
    state = {"features.0.weight": first, "features.0.bias": torch.zeros(64)}
    if kind == ".pth":
        torch.save(state, file)
    elif kind == ".safetensors":
        save_file(state, file)
    else:
        make, info = onnx.helper, onnx.helper.make_tensor_value_info
        node = make.make_node("Conv", ["x", "w", "b"], ["y"], strides=[4, 4], pads=[2, 2, 2, 2])
        stored = [onnx.numpy_helper.from_array(t.numpy(), n) for t, n in zip(state.values(), "wb")]
        graph = make.make_graph(
            [node], "g", [info("x", 1, [1, 3, 224, 224])], [info("y", 1, None)], stored
        )
        onnx.save(make.make_model(graph), str(file))
    return file


@pytest.mark.parametrize("kind", [".pth", ".safetensors", ".onnx"])
def test_torchvisions_weights_are_another_nets(tmp_path, kind, capsys):
    line = refused(capsys, torchvisions(tmp_path, kind))
    assert "torchvision's AlexNet" in line and "64, 192, 384, 256 and 256" in line
    assert "no response normalization" in line and "torchvision.models.alexnet" in line


@pytest.mark.parametrize("operators", [["QLinearConv"], ["QuantizeLinear", "DequantizeLinear"]])
def test_weights_in_eight_bits_are_refused_with_the_reason(tmp_path, operators, capsys):
    model = published.zoo(NARROW, opset=12)
    for operator, node in zip(operators, model.graph.node):
        node.op_type = operator
    onnx.save(model, str(tmp_path / "net.onnx"))
    line = refused(capsys, tmp_path / "net.onnx")
    assert "eight bits" in line and operators[0] in line and "without -int8 or -qdq" in line


def pth(folder):
    torch.save(merged(NARROW), folder / "net.pth")
    return folder / "net.pth"


def tensors(folder):
    save_file(merged(NARROW), folder / "net.safetensors")
    return folder / "net.safetensors"


KINDS = {
    kind: lambda folder, kind=kind: write(folder, NARROW, kind)
    for kind in (".caffemodel", ".onnx", ".npy")
}
KINDS |= {".pth": pth, ".safetensors": tensors}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["empty", "half", "short", "other", "text"])
def test_damaged_and_other_files_get_one_line(tmp_path, kind, fault, capsys):
    file = KINDS[kind](tmp_path)
    content, noise = file.read_bytes(), np.random.default_rng(0).bytes(5000)
    text = "<html>404: not found</html>\n" * 9
    parts = {"empty": b"", "half": content[: len(content) // 2], "short": content[:-3]}
    file.write_bytes({**parts, "other": noise, "text": text.encode()}[fault])
    line = refused(capsys, file, "--preset", "caffe", "--mean", "1,2,3")
    assert fault != "empty" or "is empty" in line
    assert len(line) < 400 and "Traceback" not in line


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("kind", [".npy", ".pth"])
def test_no_pickle_is_executed(tmp_path, kind, capsys):
    mark, file = tmp_path / "executed", tmp_path / f"net{kind}"
    if kind == ".npy":
        published.write_npy(file, {"conv1": Evil(mark)})
    else:
        torch.save({"conv1.weight": Evil(mark)}, file)
    assert "which is not executed" in refused(capsys, file)
    if kind == ".npy":
        np.save(tmp_path / "plain.npy", np.zeros(3))
        assert "plain array" in refused(capsys, tmp_path / "plain.npy")
    assert not mark.exists()
    with file.open("wb") as opened:  # and it would have been
        pickle.dump(Evil(mark), opened)
    pickle.loads(file.read_bytes())
    assert mark.exists()


def another(change):
    layers = {name: list(pair) for name, pair in NARROW.items()}
    change(layers)
    return layers


def test_nets_that_are_no_alexnet_are_refused_by_what_differs(tmp_path, capsys):
    file = tmp_path / "net.caffemodel"
    file.write_bytes(published.caffemodel(NARROW, alpha=5e-4))
    line = refused(capsys, file)
    assert "conv1 is" in line and "alpha 0.0001" in line and "alpha 2e-05" in line
    file.write_bytes(published.caffemodel(another(lambda layers: layers.pop("conv4"))))
    assert "7 layers with weights" in refused(capsys, file)
    file.write_bytes(published.caffemodel(NARROW).replace(b"InnerProduct", b"LSTM Product"))
    assert "of kind LSTM Product, which AlexNet has not" in refused(capsys, file)
    file.write_bytes(
        published.caffemodel(another(lambda x: x["fc6"].__setitem__(0, x["fc6"][0][:, :9])))
    )
    assert "fc6.weight has shape" in refused(capsys, file)
    file.write_bytes(
        published.caffemodel(another(lambda x: x["conv3"].__setitem__(1, x["conv3"][1] * np.nan)))
    )
    assert "conv3.bias holds numbers that are not finite" in refused(capsys, file)
    file.write_bytes(published.caffemodel(NARROW))
    assert "groups" in refused(capsys, file, "--preset", "paper/one-column")
    file.write_bytes(published.field(2, published.field(1, published.field(1, "conv1"))))
    assert "upgrade_net_proto_binary" in refused(capsys, file)

    model = published.zoo(NARROW)
    pool = next(node for node in model.graph.node if node.op_type == "MaxPool")
    onnx.helper.set_model_props(model, {"pool": pool.name})
    next(a for a in pool.attribute if a.name == "pads").ints[:] = [1, 1, 1, 1]
    onnx.save(model, str(tmp_path / "net.onnx"))
    assert "has padding [1, 1, 1, 1]" in refused(capsys, tmp_path / "net.onnx")
    line = refused(capsys, write(tmp_path, NARROW, ".onnx"), "--image-size", 227)
    assert "takes images of 224 pixels, not 227" in line
    onnx.save(onnx.load(str(published.LIGHT)), str(tmp_path / "net.onnx"))
    assert "no weights and biases that are stored" in refused(capsys, tmp_path / "net.onnx")


def test_a_graph_that_branches_is_refused(tmp_path, capsys):
    model = published.zoo(NARROW)
    for node in model.graph.node:
        if node.op_type == "Relu" and node.output[0] == "r9":
            node.op_type = "Add"
            node.input.insert(0, "r7")
    onnx.save(model, str(tmp_path / "net.onnx"))
    refused(capsys, tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mean", "1,2"), "give three numbers in RGB"),
        (("--mean", "nowhere.npy"), "there is no such file"),
        (("--mean", "0.4,0.4,0.4"), "in gray levels"),
        (("--classes", "nowhere.txt"), "cannot read nowhere.txt"),
        (("--preset", "papper"), "there is no preset 'papper'"),
        (("--image-size", "30"), "too small"),
        (("--image-size", "40"), "another --preset or --image-size may fit"),
    ],
)
def test_options_that_do_not_fit_are_named(tmp_path, options, message, capsys):
    file = write(tmp_path, NARROW, ".caffemodel")
    assert alexnet("import", file, tmp_path / "run", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_places_that_do_not_fit_are_named(tmp_path, capsys):
    file = write(tmp_path, TINY, ".npy")
    for name, message in (("nowhere.onnx", "does not exist"), (".", "is a folder")):
        assert alexnet("import", tmp_path / name, tmp_path / "run") == 2
        assert message in capsys.readouterr().err
    (tmp_path / "net.h5").touch()
    assert "should end in one of" in refused(capsys, tmp_path / "net.h5")
    (tmp_path / "full" / "x").mkdir(parents=True)
    assert alexnet("import", file, tmp_path / "full", "--image-size", 67) == 2
    assert "exists already" in capsys.readouterr().err


# --- the book's page -----------------------------------------------------------------------------

PAGE = Path(__file__).resolve().parents[1] / "book" / "which-alexnet.md"


def test_the_books_commands_are_commands():
    lines = [
        line.strip() for line in PAGE.read_text().splitlines() if line.startswith("    alexnet ")
    ]
    read = [cli.parser().parse_args(shlex.split(line)[1:]) for line in lines]
    imported = [args for args in read if args.command == "import"]
    assert len(imported) == 5 and len(read) == 10
    assert {args.file.suffix for args in imported} <= set(imports.READERS)


def test_the_books_sizes_are_the_presets():
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| sides")]
    stated = [cell.strip() for cell in rows[0][2:5]]
    nets = (("paper", 224), ("caffe", 227), ("caffe/224-unpadded", 224))
    for text, (name, size) in zip(stated, nets, strict=True):
        table = presets.shapes(presets.get(name), image_size=size)
        sides = [table[0].size, table[1].size, table[2].size, table[4].out_size]
        assert text == ", ".join(map(str, sides)), name
