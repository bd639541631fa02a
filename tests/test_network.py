"""The network against exact arithmetic, and against the same net of torch's own layers."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F

import alexnet
from alexnet import AlexNet, rng
from alexnet.errors import InputError
from alexnet.presets import PAPER, VARIANTS, Dropout, Operation, get, initial_sigmas, total
from alexnet.presets.operations import State


def test_the_module_has_the_tables_parameters():
    net = AlexNet("paper")
    assert sum(p.numel() for p in net.parameters()) == 60_965_224
    merged = net.export_merged()
    assert {
        name: tuple(value.shape) for name, value in merged.items() if name.endswith("weight")
    } == {
        "conv1.weight": (96, 3, 11, 11),
        "conv2.weight": (256, 48, 5, 5),
        "conv3.weight": (384, 256, 3, 3),
        "conv4.weight": (384, 192, 3, 3),
        "conv5.weight": (256, 192, 3, 3),
        "fc6.weight": (4096, 9216),
        "fc7.weight": (4096, 4096),
        "fc8.weight": (1000, 4096),
    }


@pytest.mark.parametrize("variant", sorted(VARIANTS))
@pytest.mark.parametrize("base", ["paper", "source"])
def test_every_variant_learns_a_step(base, variant):
    net = AlexNet(f"{base}/{variant}", 10, width=1 / 8, image_size=64)
    logits = net(torch.randn(2, 3, 64, 64) * 50)
    assert logits.shape == (2, 10)
    F.cross_entropy(logits, torch.tensor([1, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def torch_net(
    merged: dict, preset: str, x: torch.Tensor, masks: list[torch.Tensor]
) -> torch.Tensor:
    """The two-column net by torch's own grouped convolutions and normalization.

    Written from the text and the source's table, not from `alexnet`.
    """
    w = lambda name: (merged[f"{name}.weight"], merged[f"{name}.bias"])  # noqa: E731
    conv = lambda x, name, **how: F.conv2d(x, *w(name), **how)  # noqa: E731

    def lrn(x, alpha):  # per column: fold the columns into the batch
        n, c, h, width = x.shape
        if preset == "caffe":  # over all maps
            return F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)
        return F.local_response_norm(
            x.reshape(n * 2, c // 2, h, width), 5, alpha * 5, 0.75, 2.0
        ).reshape(x.shape)

    def same_map(x):
        return x * (1 + 4e-5 * 25 * F.avg_pool2d(x**2, 5, 1, 2)) ** -0.75

    def pool(x):
        return F.max_pool2d(x, 3, 2)

    x = conv(x if preset == "caffe" else F.pad(x, (0, 3, 0, 3)), "conv1", stride=4)
    x = pool(lrn(x, 2e-5)).relu() if preset == "source" else pool(lrn(x.relu(), 1e-4))
    x = conv(x, "conv2", padding=2, groups=2).relu()
    x = pool(same_map(lrn(x, 2e-5))) if preset == "source" else pool(lrn(x, 1e-4))
    x = conv(x, "conv3", padding=1).relu()
    x = conv(x, "conv4", padding=1, groups=2).relu()
    x = pool(conv(x, "conv5", padding=1, groups=2).relu())
    x = F.linear(x.flatten(1), *w("fc6")).relu() * masks[0]
    x = F.linear(x, *w("fc7")).relu() * masks[1]
    return F.linear(x, *w("fc8"))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("preset", ["paper", "source", "caffe"])
def test_equals_the_same_net_of_torchs_layers(preset, training):
    """Outputs and gradients to 1e-10 in float64, with padding by 3: 64 + 3 = 14 * 4 + 11."""
    torch.manual_seed(3)
    side = 67 if preset == "caffe" else 64
    net = AlexNet(preset, 12, width=1 / 4, image_size=side).double().train(training)
    x = (torch.randn(3, 3, side, side, dtype=torch.float64) * 60).requires_grad_()
    keys = torch.arange(3)
    masks = [torch.tensor(0.5)] * 2
    if training:
        masks = [
            torch.cat(
                [rng.keep(rng.key(keys, i, column), net.table[i].maps, 0.5) for column in (0, 1)], 1
            )
            for i in (5, 6)
        ]
    if preset == "caffe":  # whose dropout divides in training
        masks = [2 * mask for mask in masks]

    logits = net(x, keys)
    loss = F.cross_entropy(logits, torch.tensor([0, 5, 11]))
    grads = torch.autograd.grad(loss, [x, *net.parameters()])

    merged = {name: value.clone().requires_grad_() for name, value in net.export_merged().items()}
    y = x.detach().clone().requires_grad_()
    expected = torch_net(merged, preset, y, masks)
    F.cross_entropy(expected, torch.tensor([0, 5, 11])).backward()

    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(grads[0], y.grad, rtol=0, atol=1e-10)
    # gradients in the merged layout, by the same path as weights
    holder = AlexNet(preset, 12, width=1 / 4, image_size=side).double()
    with torch.no_grad():
        for parameter, grad in zip(holder.parameters(), grads[1:], strict=True):
            parameter.copy_(grad)
    for name, grad in holder.export_merged().items():
        torch.testing.assert_close(grad, merged[name].grad, rtol=0, atol=1e-10)


def test_dropout_keeps_half_in_training_and_halves_at_test_time():
    torch.manual_seed(0)
    net = AlexNet("paper", 10, width=1 / 8, image_size=64).double()
    stage = net.columns["0"]["fc6"]
    x = torch.rand(400, stage.shape.fan_in, dtype=torch.float64)
    net.train()
    kept, others = (net.columns[n]["fc6"](x, torch.arange(400)) != 0 for n in "01")
    assert 0.48 < kept.double().mean() < 0.52
    assert not torch.equal(kept, others)  # columns draw for themselves
    net.eval()
    torch.testing.assert_close(stage(x, None), 0.5 * F.linear(x, stage.weight, stage.bias).relu())


def test_initial_weights_follow_the_seed_and_the_table():
    torch.manual_seed(7)
    a = AlexNet("source", 20, width=1 / 4, image_size=64)
    torch.manual_seed(7)
    b = AlexNet("source", 20, width=1 / 4, image_size=64)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    c = AlexNet("source", 20, width=1 / 4, image_size=64)
    assert not torch.equal(a.columns["0"]["conv1"].weight, c.columns["0"]["conv1"].weight)
    sigmas = initial_sigmas(a.preset, a.table)
    for row, sigma in zip(a.table, sigmas, strict=True):
        stage = a.columns["0"][row.layer.name]
        assert stage.weight.std().item() == pytest.approx(sigma, rel=0.15), row.layer.name
        assert (stage.bias == row.layer.bias).all()


def test_every_parameter_has_a_kind():
    kinds = AlexNet("paper", 10, 1 / 8, 64).parameter_kinds()
    assert list(kinds) == [name for name, _ in AlexNet("paper", 10, 1 / 8, 64).named_parameters()]
    assert all(name.endswith(kind) for name, kind in kinds.items())
    assert sorted(kinds.values()).count("weight") == 16 and len(kinds) == 31


def test_what_is_fused_is_planned_when_the_net_is_built():
    """conv1 of both presets and the text's conv2 are one kernel; nothing else is."""
    for preset, fused in (
        ("paper", ["conv1", "conv2"]),
        ("source", ["conv1"]),
        ("paper/tanh", []),
        ("caffe", []),
    ):
        net = AlexNet(preset, 10, 1 / 16, 64)
        stages = {row.layer.name: net.stages(row.layer.name)[0] for row in net.table}
        assert [name for name, stage in stages.items() if stage.fused] == fused
        for stage in stages.values():
            assert len(stage.operations) == len(stage.shape.layer.then)
            run = len(stage.separate) + sum(map(len, stage.met))
            assert run == len(stage.operations) - (3 if stage.fused else 0)


@dataclass(frozen=True)
class Scale(Operation):
    """Each map by a factor of its own; counts how often it was called in training."""

    state = (State("gain", 1.0, "gain"), State("calls", per="column", merge="same"))

    def apply(self, x, module, keys):
        if module.training:
            module.calls.add_(1)
        return x * module.gain.view(1, -1, *[1] * (x.dim() - 2))


def scaled() -> AlexNet:
    """The text's net with such operations, one after what is fused, two in one layer."""
    after = {"conv1": (Scale(),), "fc6": (Scale(), Scale())}
    layers = (replace(row, then=row.then + after.get(row.name, ())) for row in PAPER.layers)
    return AlexNet(replace(PAPER, layers=tuple(layers)), 10, 1 / 16, 64)


def test_operations_state_has_names_and_merges_as_its_row_says():
    net, images = scaled(), torch.randn(2, 3, 64, 64)
    names = dict(net.named_parameters()) | dict(net.named_buffers())
    assert {"columns.1.conv1.operations.3.gain", "columns.0.fc6.operations.3.calls"} <= set(names)
    assert sum(p.numel() for p in net.parameters()) == total(net.table, "parameters")
    kinds = net.parameter_kinds()
    assert [n for n, kind in kinds.items() if kind == "gain"] == [n for n in kinds if "gain" in n]
    net(images)
    with torch.no_grad():
        for stage in net.stages("fc6"):
            stage.operations[2].gain.fill_(stage.column + 2.0)
    merged = net.export_merged()
    added = {name: tuple(value.shape) for name, value in merged.items() if "scale" in name}
    assert added == {
        "conv1.scale.gain": (6,), "conv1.scale.calls": (1,),
        "fc6.scale.gain": (256,), "fc6.scale.calls": (1,),
        "fc6.scale_2.gain": (256,), "fc6.scale_2.calls": (1,),
    }  # fmt: skip
    assert merged["fc6.scale.gain"].tolist() == [2.0] * 128 + [3.0] * 128
    assert merged["fc6.scale.calls"].item() == 1
    other = scaled()
    other.load_merged(merged)
    assert all(stage.operations[2].calls.item() == 1 for stage in other.stages("fc6"))
    assert torch.equal(other.eval()(images), net.eval()(images))
    before = scaled()
    before.load_merged(merged, but=["fc6", "fc7"])
    assert (before.stages("fc6")[1].operations[2].gain == 1).all()


def test_merged_weights_come_back():
    a, b = (AlexNet("paper", 10, 1 / 8, 64).eval() for _ in range(2))
    b.load_merged(a.export_merged())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(a(x), b(x))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d.pop("conv4.bias"), "lack conv4.bias"),
        (lambda d: d.update(extra=torch.zeros(1)), "hold extra"),
        (lambda d: d.update({"fc7.weight": torch.zeros(3, 3)}), r"fc7.weight has shape \(3, 3\)"),
        (
            lambda d: d.update({"fc8.bias": d["fc8.bias"].numpy()}),
            r"fc8.bias is of ndarray; give a torch.Tensor",
        ),
        (lambda d: d.update({"fc8.bias": d["fc8.bias"].long()}), r"fc8.bias is of torch.int64"),
        (lambda d: d.update({"fc8.bias": d["fc8.bias"].to("meta")}), "is on the meta device"),
        (lambda d: d.update({"fc8.bias": d["fc8.bias"].to_sparse()}), "is torch.sparse_coo"),
        (lambda d: d.update({7: torch.zeros(1)}), "hold 7"),
    ],
)
def test_load_merged_refuses_and_names(change, named):
    net = AlexNet("paper", 10, 1 / 8, 64)
    before = net.export_merged()
    weights = {name: value + 1 for name, value in before.items()}
    change(weights)
    with pytest.raises(InputError, match=named):
        net.load_merged(weights)
    assert all(torch.equal(value, before[name]) for name, value in net.export_merged().items())


def test_load_merged_takes_tensors_by_name():
    with pytest.raises(InputError, match="weights are tensors by name; this is a list"):
        AlexNet("paper", 10, 1 / 8, 64).load_merged([])


def test_load_merged_knows_the_layers_that_are_to_stay():
    net = AlexNet("paper", 10, 1 / 8, 64)
    with pytest.raises(InputError, match=r"there is no layer 'fc9'; there are conv1, .*fc8"):
        net.load_merged(net.export_merged(), but=["fc9"])


@pytest.mark.parametrize("shape", [(1, 3, 66, 66), (1, 1, 64, 64), (3, 64, 64)])
def test_input_of_another_size_is_refused(shape):
    with pytest.raises(InputError, match=r"the net's input is \(N, 3, 64, 64\); it is"):
        AlexNet("paper", 3, 1 / 16, 64)(torch.zeros(shape))


def test_summary_prints_the_totals(capsys):
    AlexNet("paper", 1000).summary()
    out = capsys.readouterr().out
    for text in ("60,965,224", "659,272", "724,406,816", "55x55", "2 x 48", "cpu + cpu"):
        assert text in out


def test_features_are_what_the_last_layer_reads():
    torch.manual_seed(0)
    net = AlexNet("paper", 10, 1 / 8, 64).eval()
    images = 60 * torch.randn(2, 3, 64, 64)
    units = net.features(images).detach()
    assert units.shape == (2, 512) and bool((units >= 0).all()) and float(units.max()) > 0
    merged = net.export_merged()
    torch.testing.assert_close(
        F.linear(units, merged["fc8.weight"], merged["fc8.bias"]), net(images)
    )
    maps = net.features(images, "conv5")
    assert maps.shape == (2, 32, 1, 1)
    torch.testing.assert_close(
        net.columns["1"]["fc6"](maps, None), net.features(images, "fc6")[:, 256:]
    )
    for layer in ("fc8", "conv9"):
        with pytest.raises(
            InputError, match=f"no layer '{layer}' below its last; it has conv1, conv2,"
        ):
            net.features(images, layer)


def test_a_layer_may_stay_as_it_is_when_weights_are_taken():
    torch.manual_seed(0)
    many, few = AlexNet("paper", 20, 1 / 8, 64), AlexNet("paper", 10, 1 / 8, 64)
    before, weights = few.export_merged(), many.export_merged()
    with pytest.raises(
        InputError, match=r"fc8.weight has shape \(20, 512\); this net needs \(10, 512\)"
    ):
        few.load_merged(weights)
    few.load_merged(weights, but=["fc8"])
    for name, value in few.export_merged().items():
        assert torch.equal(value, (before if name.startswith("fc8") else weights)[name]), name


# --- in a program of one's own ---------------------------------------------------------------


def test_a_nonlinearity_is_a_name_of_the_table_or_a_function():
    settings = {"num_classes": 5, "width": 1 / 16, "image_size": 64}
    images, nets = 50 * torch.randn(2, 3, 64, 64), []
    for preset, activation in (
        ("paper/tanh", None), ("paper", "tanh"), ("paper", torch.tanh), ("paper", None),
    ):  # fmt: skip
        torch.manual_seed(3)
        nets.append(AlexNet(preset, **settings, activation=activation).eval())
    named, by_name, by_function, relu = (net(images) for net in nets)
    torch.testing.assert_close(by_name, named, rtol=0, atol=0)
    torch.testing.assert_close(by_function, named, rtol=0, atol=0)
    assert not torch.allclose(relu, named)
    assert nets[1].preset.name == nets[2].preset.name == "paper/tanh"
    with pytest.raises(InputError, match=r"must be one of relu, tanh, sigmoid or a function"):
        AlexNet("paper", **settings, activation="pink")


def test_dropout_on_maps_drops_each_neuron_and_scales_at_test_time():
    paper = get("paper")
    rows = [replace(row, then=(*row.then, Dropout(0.5))) if row.name == "conv3" else row
            for row in paper.layers]  # fmt: skip
    net = AlexNet(replace(paper, layers=tuple(rows)), 5, 1 / 4, 64)
    stage, keys = net.stages("conv3")[0], torch.arange(8)
    maps = torch.randn(8, stage.shape.in_maps, 3, 3)
    whole = net.train() and stage.separate[0](stage.weighted_sums(maps, stage.bias), None)
    dropped = stage(maps, keys)
    kept = dropped != 0
    assert torch.equal(dropped[kept], whole[kept])
    share = float(kept.sum() / (whole != 0).sum())
    assert 0.4 < share < 0.6 and not torch.equal(kept[:, :, 0, 0], kept[:, :, 1, 1])
    net.eval()
    torch.testing.assert_close(stage(maps, None), whole / 2)


def test_a_net_prints_its_table_and_the_package_its_names():
    net = AlexNet("paper", 1000, image_size=224)
    assert repr(net).startswith("AlexNet('paper', 1000, 1, 224)\n") and "60,965,224" in repr(net)
    assert {"AlexNet", "Classifier", "predict"} <= set(dir(alexnet))
    assert "LRN(size=5" in repr(net.stages("conv1")[0])


@pytest.mark.parametrize("preset", ["paper", "source"])
def test_autocast_and_channels_last_compute_the_same(preset):
    net, images = AlexNet(preset, 5, 1 / 8, 64), 50 * torch.randn(4, 3, 64, 64)
    expected = net.eval()(images)
    last = torch.channels_last
    found = net.to(memory_format=last)(images.contiguous(memory_format=last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = net(images)
        half.float().sum().backward()
    assert half.dtype == torch.bfloat16 and net.stages("conv1")[0].weight.grad.isfinite().all()
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(half.float(), expected, rtol=0, atol=0.05 * scale)
