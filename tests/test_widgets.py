"""The figures to play with compute what the package computes.

Their JavaScript is run by node, beside torch and NumPy.
"""

import base64
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import alexnet_kernels as kernels
from alexnet import AlexNet, experiments, labnotebook, presets
from alexnet.claims import statistics
from alexnet.data.augment import Augment
from alexnet.data.moments import Moments
from alexnet.diagnosis.sizes import measure
from alexnet.experiments import page
from alexnet.presets import Recipe

ROOT = Path(__file__).resolve().parents[1]
WIDGETS = ROOT / "book" / "_static" / "widgets"
sys.path.insert(0, str(ROOT / "scripts"))
import widget_data  # noqa: E402

OWN_CODE_LIMIT = 20_000  # bytes of one script
DATA_LIMIT = (
    1_000_000  # bytes of one data file: what a page with that figure loads beside the book's own
)


def node() -> str | None:
    """node, or the one inside Playwright."""
    if found := shutil.which("node"):
        return found
    try:
        import playwright
    except ImportError:
        return None
    inside = Path(playwright.__file__).parent / "driver" / "node"
    return str(inside) if inside.is_file() else None


needs_node = pytest.mark.skipif(
    node() is None, reason="needs node, or the package playwright, which carries it"
)


def js(name: str, expression: str, **data: Any) -> Any:
    """The value of an expression over a widget's functions, `w`, and `data`, under their names."""
    script = f"""
        const w = require({json.dumps(str(WIDGETS / f"{name}.js"))});
        const {{ {", ".join(data)} }} = JSON.parse(require("fs").readFileSync(0, "utf8"));
        const plain = (_, value) => ArrayBuffer.isView(value) ? Array.from(value) : value;
        process.stdout.write(JSON.stringify({expression}, plain));
    """
    command = [node() or "", "--input-type=commonjs", "-e", script]
    done = subprocess.run(
        command, input=json.dumps(data), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize(
    "settings", [{}, {"n": 3, "k": 1.0, "alpha": 2e-3, "beta": 0.5}, {"n": 11, "alpha": 2e-5}]
)
def test_response_normalization(columns: int, settings: dict[str, float]) -> None:
    a = (100 * np.random.default_rng(0).normal(size=24)).tolist()
    got = js("lrn", "w.normalize(a, settings)", a=a, settings=settings | {"columns": columns})
    given = {{"n": "size"}.get(name, name): value for name, value in settings.items()}
    wanted = kernels.local_response_norm(
        torch.tensor(a, dtype=torch.float64).reshape(1, 24, 1, 1), columns=columns, **given
    )
    np.testing.assert_allclose(got, wanted.flatten(), rtol=1e-12)


@needs_node
@pytest.mark.parametrize(("z", "s"), [(3, 2), (2, 2), (1, 1), (5, 3), (2, 4), (6, 6), (1, 5)])
@pytest.mark.parametrize("ceil", [False, True])
def test_pooling(z: int, s: int, ceil: bool) -> None:
    grid = np.random.default_rng(1).integers(0, 100, (13, 13)).astype(float)
    got = js("pooling", "w.maxPool(map, z, s, ceil)", map=grid.tolist(), z=z, s=s, ceil=ceil)
    wanted = torch.nn.functional.max_pool2d(torch.from_numpy(grid)[None], z, s, ceil_mode=ceil)[0]
    np.testing.assert_array_equal(got, wanted)
    if not ceil:
        np.testing.assert_array_equal(
            got, kernels.max_pool(torch.from_numpy(grid)[None, None], z, s)[0, 0]
        )
    read = np.zeros(13)
    for start in range(0, s * len(got), s):
        read[start : start + z] += 1
    np.testing.assert_array_equal(
        js("pooling", "w.readers(13, z, s, ceil)", z=z, s=s, ceil=ceil), read
    )


@needs_node
def test_the_puzzle_of_224_and_227() -> None:
    windows = "sizes.map((n) => w.output(way.of(n)).windows)"
    each = f"Object.entries(w.WAYS).map(([name, way]) => [name, {windows}])"
    ways = js("puzzle", f"Object.fromEntries({each})", sizes=list(range(216, 237)))
    ours = presets.get("paper")
    assert ways["up"] == [presets.shapes(ours, image_size=size)[0].size for size in range(216, 237)]
    image = torch.zeros(1, 1, 1, 236)
    for name, pad in (("floor", 0), ("both", 2)):
        conv = torch.nn.Conv2d(1, 1, (1, 11), stride=(1, 4), padding=(0, pad))
        assert ways[name] == [conv(image[..., :size]).shape[-1] for size in range(216, 237)]
    assert (ways["floor"][8], ways["up"][8], ways["both"][8], ways["floor"][11]) == (54, 55, 55, 55)
    assert (
        js("puzzle", "w.output(w.WAYS.up.of(224)).lacking") == presets.shapes(ours)[0].pad[1] == 3
    )
    table = presets.shapes(ours)
    assert js("puzzle", "w.chain(55)") == [
        table[0].size,
        table[0].out_size,
        table[1].out_size,
        table[4].out_size,
    ]


@needs_node
def test_the_momentum_rules() -> None:
    settings = {
        "start": [-2.8, 0.8],
        "rate": 0.02,
        "momentum": 0.9,
        "decay": 0.1,
        "steps": 60,
        "fall": 20,
    }
    paths = js(
        "momentum",
        "[w.path(w.paperStep, settings), w.path(w.torchStep, settings)]",
        settings=settings,
    )
    valley = torch.tensor(js("momentum", "w.VALLEY"), dtype=torch.float64)
    w, v = torch.tensor(settings["start"], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    other = w.clone().requires_grad_()
    sgd = torch.optim.SGD([other], lr=settings["rate"], momentum=0.9, weight_decay=0.1)
    for i in range(60):
        rate = settings["rate"] / (1 if i < 20 else 10)
        kernels.momentum_step_([w], [valley * w], [v], rate, 0.9, 0.1)
        sgd.param_groups[0]["lr"] = rate
        other.grad = valley * other.detach()
        sgd.step()
        np.testing.assert_allclose(paths[0][i + 1], w, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(paths[1][i + 1], other.detach(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(paths[0][20], paths[1][20], rtol=1e-9)
    assert abs(paths[0][25][0] - paths[1][25][0]) > 0.1


@needs_node
@pytest.mark.parametrize(
    "settings",
    [
        {"sigma": 0.01, "bias": 1.0, "scale": 1.0},
        {"sigma": 0.03, "bias": 0.0, "scale": 1 / 58},
        {"sigma": 0.07, "bias": 0.4, "scale": 0.3},
    ],
)
def test_the_plateau_explorer_measures_what_layer_sizes_measures(
    settings: dict[str, float],
) -> None:
    data = widget_data.plateau()
    data["images"] = 4
    expression = """(() => {
        const net = w.build(data), weights = net.rows.map((row) => row.weight);
        const found = w.sizes(net, { ...settings, rate: data.rate });
        return { ...found, weights, pixels: net.pixels, labels: net.labels };
    })()"""
    got = js("plateau", expression, data=data, settings=settings)
    classes, width, size = (data[name] for name in ("classes", "width", "size"))
    net = AlexNet("paper", classes, width=width, image_size=size)
    state = net.export_merged()
    for layer, weight in zip(data["layers"], got["weights"], strict=True):
        name = layer["name"]
        gain = settings["sigma"] / 0.01 if name in ("conv3", "conv4", "conv5") else 1
        entry = state[f"{name}.weight"]
        state[f"{name}.weight"] = gain * torch.tensor(weight).reshape(entry.shape)
        state[f"{name}.bias"].fill_(settings["bias"] if layer["bias"] else 0)
    net.load_merged(state)
    images = settings["scale"] * torch.tensor(got["pixels"]).reshape(-1, 3, size, size)
    sizes = measure(net, images, torch.tensor(got["labels"]), data["rate"])
    assert got["loss"] == pytest.approx(sizes.loss, rel=1e-4)
    assert got["pace"] == pytest.approx(sizes.pace, rel=2e-3)
    for own, row in zip(got["rows"], sizes.rows, strict=True):
        for kind in ("layer", "signal", "differs", "plateau"):
            expected = getattr(row, kind)
            is_name = isinstance(expected, str)
            assert own[kind] == (expected if is_name else pytest.approx(expected, rel=3e-3)), kind


def test_the_runs_of_the_plateau_explorer_are_the_archives() -> None:
    known = {run["title"]: run for run in widget_data.plateau()["known"]}
    text, source = known["the text"], known["the source's σ"]
    assert (text["sigma"], text["bias"], text["scale"]) == (0.01, 1.0, 1.0)
    assert (source["sigma"], source["bias"], source["trains"]) == (0.03, 1.0, True)
    archived = experiments.archived("recipe", "tiny-imagenet-cpu")
    assert archived is not None
    steps = archived["metrics"]["arms"]["sigma-0.03"]["left_at_step"].values()
    assert f"after {min(steps)} to {max(steps)} steps (Tiny ImageNet)" in source["said"]


@needs_node
def test_the_pace_orders_the_known_runs() -> None:
    data = widget_data.plateau()
    each = "data.known.map((run) => w.sizes(net, { ...run, rate: data.rate }).pace)"
    paces = js("plateau", f"((net) => {each})(w.build(data))", data=data)
    pace = dict(zip([run["title"] for run in data["known"]], paces, strict=True))
    source = pace["the source's σ"]
    assert source > pace["the source's σ, biases 0"] > pace["the text"] > data["limits"]["pace"]
    assert source > 10 * pace["the source's σ, pixels from 0 to 1"]


@needs_node
def test_how_many_seeds_by_the_statistics_of_the_claims() -> None:
    cases = [
        (spread, effect, seeds, level)
        for spread, effect in ((0.1, 0.4), (0.3, 0.4), (8.0, 1.4), (2.0, 20.0))
        for seeds in (2, 5, 40)
        for level in (0.05, 0.05 / 12)
    ]
    each = """{
        half: w.half(s, n, l), power: w.power(e, s, n, l),
        least: w.smallestEffect(s, n, l), needed: w.seedsNeeded(e, s, l),
    }"""
    expression = f"cases.map(([s, e, n, l]) => ({each}))"
    for (spread, effect, seeds, level), got in zip(cases, js("seeds", expression, cases=cases)):
        quantile = statistics.t_quantile(1 - level / 2, 2 * (seeds - 1))
        assert got["half"] == pytest.approx(quantile * spread * (2 / seeds) ** 0.5, rel=1e-9)
        power = statistics.power(effect, spread, seeds, level=level)
        assert got["power"] == pytest.approx(power, abs=2e-4)
        least = statistics.smallest_effect(spread, seeds, level=level)
        assert got["least"] == pytest.approx(least, rel=2e-3)
        assert got["needed"] == statistics.seeds_needed(effect, spread, level=level)
    arms = [[1.0, 2.0, 4.0], [3.0, 5.0, 5.5]]
    estimate = statistics.welch(*arms)  # where both spreads are one, Welch's interval is this one
    half = js("seeds", "w.half(spread, 3)", spread=estimate.spread)
    assert half == pytest.approx(estimate.half, rel=0.02)


@needs_node
def test_the_distributions_of_the_page() -> None:
    z = [-40.0, -8.0, -2.5, -1e-9, 0.0, 0.3, 2.4, 2.5, 6.0, 40.0]
    expected = [statistics._normal(value) for value in z]
    got = js("seeds", "z.map(w.normal)", z=z)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-300)
    x = [0.5, 1.0, 1.5, 7.0, 99.5]
    expected = [math.lgamma(value) for value in x]
    np.testing.assert_allclose(js("seeds", "x.map(w.lgamma)", x=x), expected, rtol=1e-10, atol=1e-9)


def test_the_spreads_of_the_page_are_those_of_the_runs() -> None:
    examples = {one["title"]: one for one in widget_data.seeds()["examples"]}
    logged = examples["overlap, on ImageNet"]
    assert (logged["spread"], logged["effect"]) == (pytest.approx(0.1, abs=0.01), 0.4)
    pictographs = examples["normalization, on pictographs"]
    archived = experiments.archived("ablations", "embedded")
    assert archived is not None
    nets = archived["metrics"]["nets"]["full"].values()
    spread = np.std([100 * net["views"]["10"]["top1"] for net in nets], ddof=1)
    assert pictographs["spread"] == pytest.approx(spread, abs=1e-3)


@needs_node
@pytest.mark.parametrize("reading", ["text", "text-255", "source"])
def test_color_shifts(reading: str) -> None:
    color = Moments.of(
        np.random.default_rng(2).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    ).color()
    axes = {name: color[name].tolist() for name in ("eigenvalues", "eigenvectors")}
    draws = [0.1, -0.05, 0.2]
    got = js(
        "augment", "w.colorShift(draws, axes, reading)", draws=draws, axes=axes, reading=reading
    )
    augment = Augment(Recipe(color=reading), np.zeros((8, 8, 3), np.float32), 8, color)
    np.testing.assert_allclose(
        got["shift"], torch.tensor(draws, dtype=torch.float64) @ augment.axes.T, rtol=1e-9
    )
    assert got["scale"] == pytest.approx(1 / 1.1 if reading == "source" else 1)
    assert js("augment", "w.views(256, 224)") == 2178


def test_the_axes_shown_are_eigenvectors() -> None:
    for axes in widget_data.photo()["axes"].values():
        vectors = np.array(axes["eigenvectors"])
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-3)
        assert (vectors.sum(0) > 0).all()  # to the right is brighter
        assert axes["eigenvalues"] == sorted(axes["eigenvalues"], reverse=True)


@needs_node
def test_the_kernels_that_are_drawn() -> None:
    archived = experiments.archived("figure3", "embedded")
    assert archived is not None
    shown = next(
        each for each in widget_data.kernels()["sets"] if each["title"] == archived["data"]["title"]
    )
    for seed, text in shown["seeds"].items():
        one = "w.colorfulness(w.decode(text).subarray(i * 363, (i + 1) * 363))"
        each = f"Array.from({{length: maps}}, (_, i) => {one})"
        colors = js("kernels", each, text=text, maps=shown["maps"])
        stored = archived["metrics"]["seeds"][seed]["kernels"]
        kernels = (
            np.frombuffer(base64.b64decode(stored["bytes"]), np.int8)
            .reshape(stored["shape"])
            .astype(float)
        )  # (maps, 3, 11, 11)
        off = ((kernels - kernels.mean(1, keepdims=True)) ** 2).sum((1, 2, 3)) / (kernels**2).sum(
            (1, 2, 3)
        )
        np.testing.assert_allclose(colors, off, rtol=1e-9)
    painted = js("kernels", "w.paint(new Int8Array([127, 0, -127, 0, 0, 0]))")
    assert painted == [255, 0, 128, 255, 128, 128, 128, 255]
    assert len(shown["seeds"]) >= 3


@needs_node
def test_the_architecture_is_the_packages(tmp_path: Path) -> None:
    widget_data.write(tmp_path, "network", widget_data.network())
    text = (tmp_path / "network.js").read_text()
    match = re.fullmatch(r'Widgets\.provide\("network", (.*)\);\n', text)
    assert match
    for name, shown in json.loads(match[1])["presets"].items():
        table = presets.shapes(presets.get(name))
        assert [row["parameters"] for row in shown["layers"]] == [row.parameters for row in table]
        assert shown["neurons"] == presets.total(table, "neurons") and shown[
            "macs"
        ] == presets.total(table, "macs")
        crossing = js(
            "architecture",
            "Object.fromEntries(w.collected(layers, 'crossing'))",
            layers=shown["layers"],
        )
        assert crossing == presets.crossings(table)
        pools = js(
            "architecture",
            "w.collected(layers, 'pool').map(([name]) => name)",
            layers=shown["layers"],
        )
        assert pools == [
            row.layer.name
            for row in table
            if any(isinstance(op, presets.Pool) for op in row.layer.then)
        ]


@needs_node
@pytest.mark.parametrize(
    ("mean", "deviation"), [(0.0, 15.0), (0.0, 1.0), (1.5, 0.25), (-2.0, 32.0)]
)
def test_saturation(mean: float, deviation: float) -> None:
    normal = torch.special.ndtri((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000)
    for name, function in (("tanh", torch.tanh), ("logistic", torch.sigmoid), ("relu", torch.relu)):
        sums = (mean + deviation * normal).requires_grad_()
        (slopes,) = torch.autograd.grad(function(sums).sum(), sums)
        measure = "w.measure(w.UNITS[unit].slope, mean, deviation)"
        found = js("saturation", measure, unit=name, mean=mean, deviation=deviation)
        assert found["passed"] == pytest.approx(float(slopes.mean()), abs=1e-3)
        assert found["saturated"] == pytest.approx(float((slopes < 0.01).double().mean()), abs=1e-3)


def test_saturation_begins_where_the_chapter_does() -> None:
    """The sums of conv1 that the page prints are the figure's first."""
    chapter = (ROOT / "book" / "03-architecture.ipynb").read_text()
    (printed,) = re.findall(r'"standard deviation of conv1\'s sums: about (\d+)', chapter)
    assert f"Math.log2({printed})" in (WIDGETS / "saturation.js").read_text()


@needs_node
def test_a_units_window_is_what_its_gradient_reaches() -> None:
    wide = widget_data.net()["wide"]
    size, stages = wide["image_size"], js("receptive", "w.stages(layers)", layers=wide["layers"])
    assert [one["name"] for one in stages] == [
        *("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
    ]
    assert [one["size"] for one in stages] == [11, 19, 51, 67, 99, 131, 163, 195]
    image = torch.zeros(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    x, maps = image, {}
    for row in presets.shapes(presets.get("paper"), image_size=size)[:5]:
        x = torch.nn.functional.pad(x, (*row.pad, *row.pad))
        side = row.layer.kernel
        kernel = torch.ones(1, 1, side, side, dtype=torch.float64)
        x = maps[row.layer.name] = torch.nn.functional.conv2d(x, kernel, stride=row.layer.stride)
        if row.out_size < row.size:  # each pixel of a window can be the maximum
            x = maps[row.layer.name.replace("conv", "pool")] = torch.nn.functional.avg_pool2d(
                x, 3, 2
            )
    for number, one in enumerate(stages):
        output = maps[one["name"]]
        assert output.shape[-1] == one["side"]
        for unit in (0, one["side"] // 2, one["side"] - 1):
            (gradient,) = torch.autograd.grad(output[0, 0, unit, unit], image, retain_graph=True)
            rows = gradient[0, 0].sum(1).nonzero().flatten()
            expression = "w.window1d(w.stages(layers)[number], unit)"
            window = js("receptive", expression, layers=wide["layers"], number=number, unit=unit)
            within = [max(window[0], 0), min(window[1], size)]
            assert [int(rows[0]), int(rows[-1]) + 1] == within
            share = "w.inside(w.stages(layers)[number], unit, unit, size)"
            found = js(
                "receptive", share, layers=wide["layers"], number=number, unit=unit, size=size
            )
            assert found == pytest.approx(len(rows) ** 2 / one["size"] ** 2)


@needs_node
def test_the_convolutions_of_a_larger_picture_are_torchs() -> None:
    shown = widget_data.net()
    wide, packed = shown["wide"], shown["net"]
    size, mean = wide["image_size"], [120.0, 110.0, 100.0]
    pixels = np.random.default_rng(6).integers(0, 256, (size, size, 3)).astype(np.uint8)
    given = packed | {"layers": wide["layers"], "mean": mean, "image_size": size}
    got = js("net", "w.build(net).forward(pixels)", net=given, pixels=pixels.flatten().tolist())
    coarse, _ = page.network(packed)
    whole = page.AlexNet(packed["preset"], len(packed["names"]), packed["width"], size).eval()
    convolutions = {
        name: tensor for name, tensor in coarse.export_merged().items() if name.startswith("conv")
    }
    whole.load_merged(whole.export_merged() | convolutions)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        expected = whole.features(image - torch.tensor(mean).view(1, 3, 1, 1), "conv5").flatten()
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@needs_node
def test_the_statements_are_the_packages_and_can_be_filtered(tmp_path: Path) -> None:
    widget_data.write(tmp_path, "statements", widget_data.statements())
    text = (tmp_path / "statements.js").read_text()
    match = re.fullmatch(r'Widgets\.provide\("statements", (.*)\);\n', text)
    assert match
    data = json.loads(match[1])
    every, findings = data["statements"], data["findings"]
    assert every == labnotebook.statements() and len(every) >= 30
    chosen = "w.chosen(every, topic, finding).map((one) => one.id)"
    for topic, finding in (
        ("all", "all"),
        ("learning", "all"),
        ("all", "slip"),
        ("data", "differs"),
    ):
        expected = [
            one["id"]
            for one in every
            if topic in ("all", one["topic"]) and finding in ("all", one["finding"])
        ]
        assert expected
        assert js("statements", chosen, every=every, topic=topic, finding=finding) == expected
    counts = js("statements", "w.counts(every, findings)", every=every, findings=findings)
    assert [name for name, _ in counts] == list(labnotebook.FINDINGS)
    assert sum(number for _, number in counts) == len(every)


# --- the net in the page ---------------------------------------------------------------------


def forwards(described: dict[str, Any], pixels: np.ndarray) -> list[list[float]]:
    """The logits that the page computes for pixels (N, S, S, 3)."""
    expression = "pixels.map((one) => w.build(net).forward(one))"
    return js("net", expression, net=described, pixels=[one.flatten().tolist() for one in pixels])


@needs_node
@pytest.mark.parametrize(
    "preset",
    [
        "paper",
        "paper/sigma-0.03/no-lrn",
        "paper/one-column",
        "paper/conv6",
        "paper/no-dropout",
        "paper/no-conv3",
    ],
)
def test_the_forward_pass_is_torchs(preset: str) -> None:
    torch.manual_seed(3)
    net = page.AlexNet(preset, 7, width=1 / 16, image_size=64).eval()
    packed = page.pack(
        net,
        Augment(Recipe(), np.full((72, 72, 3), 99.6, np.float32), 64),
        [f"class {i}" for i in range(7)],
    )
    table = widget_data.described(presets.get(preset), 7, packed["width"], 64)
    pixels = np.random.default_rng(4).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    coarse, center = page.network(packed)
    with torch.no_grad():
        wanted = coarse(next(iter(center.views(torch.from_numpy(pixels)))))
    got = forwards(packed | {"layers": table["layers"]}, pixels)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@needs_node
def test_the_trained_net_says_in_the_page_what_it_says_in_torch() -> None:
    shown = widget_data.net()
    coarse, center = page.network(shown["net"])
    pixels = np.stack(
        [opened(each["src"], coarse.table[0].in_size) for each in shown["samples"][:6]]
    )
    with torch.no_grad():
        wanted = coarse(next(iter(center.views(torch.from_numpy(pixels)))))
    got = np.array(forwards(shown["net"], pixels))
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))
    labels = [shown["net"]["names"].index(each["label"]) for each in shown["samples"][:6]]
    assert (got.argmax(1) == labels).sum() >= 3, "it errs on a tenth of the test pictures"


def opened(uri: str, size: int) -> np.ndarray:
    import io

    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    edge = (picture.width - size) // 2
    return np.asarray(picture)[edge : edge + size, edge : edge + size]


def test_a_run_of_ones_own_goes_into_the_page(packs72, tmp_path: Path) -> None:
    from alexnet import training
    from alexnet.data.pack import open_splits

    splits = {"train": open_splits(packs72)["train"]}
    for preset, status in (("paper/constant-rate", 0), ("source/constant-rate", 2)):
        run = tmp_path / preset.replace("/", "-")
        config = training.Config(
            preset, 3, 1 / 16, 64, 0.2, {"train": splits["train"].digest}, batch_size=6
        )
        training.train(config, splits, run, progress=False)
        command = [
            sys.executable,
            str(ROOT / "scripts" / "widget_data.py"),
            str(tmp_path / "data"),
            "--run",
            str(run),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
    assert done.stderr.startswith("widget_data: ") and done.stderr.count("\n") == 1
    assert '"shape":[6,3,11,11]' in (tmp_path / "data" / "net.js").read_text()


# --- sizes -----------------------------------------------------------------------------------


def test_scripts_and_data_are_small(tmp_path: Path) -> None:
    widget_data.write_all(tmp_path)
    scripts = {path.name: path.stat().st_size for path in sorted(WIDGETS.iterdir())}
    assert {"common.js", "widgets.css", "net.js"} < scripts.keys() and max(
        scripts.values()
    ) < OWN_CODE_LIMIT
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "kernels.js",
        "net.js",
        "network.js",
        "photo.js",
        "plateau.js",
        "seeds.js",
        "statements.js",
    ]
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < DATA_LIMIT
