"""Steps that the host does not wait in: the same numbers as the eager ones, and nothing asked of a
tensor on the way."""

import math
import re
import signal
from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

import alexnet_kernels as kernels
from alexnet import AlexNet, presets, rng
from alexnet.convolutions import in_blocks
from alexnet.data.augment import Augment, Indexed
from alexnet.errors import InputError
from alexnet.training import Interrupted, log, train
from alexnet.training.config import check_possible
from alexnet.training.folder import WEIGHTS
from alexnet.training.learner import Learner
from alexnet.training.ranks import Ranks
from alexnet.training.steps import GraphStep, Pending, StepInput
from tests.runs import configure, small, with_running_mean

pytestmark = pytest.mark.usefixtures("one_thread")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
COLOR = {
    "eigenvalues": np.array([4000.0, 500.0, 100.0]),
    "eigenvectors": np.linalg.qr(np.arange(9.0).reshape(3, 3) % 4)[0],
}


def make(preset="source", device="cpu", dtype=torch.float32):
    torch.manual_seed(3)
    recipe = presets.get(preset).recipe
    net = with_running_mean(AlexNet(preset, 4, 1 / 8, 64))
    learner = Learner(net, recipe, Ranks(device), dtype)
    augment = Augment(recipe, np.full((72, 72, 3), 117.0, np.float32), 64, COLOR, seed=5)
    return learner, augment


def batch(step, count=6):
    images = torch.randint(
        0, 256, (count, 72, 72, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(step)
    )
    ids = torch.arange(count) + count * step
    return images, ids % 4, ids, rng.key(rng.DROPOUT, 0, step, ids)


def rates_of(learner, step):
    return [
        0.0 if step > 4 and "conv1" in name else 0.003 / (1 + step // 3)
        for name in learner.parameters
    ]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("preset", ["paper/sigma-0.03", "source"])
def test_the_same_weights_as_step_by_step(preset, dtype, device):
    plain, augment = make(preset, device, dtype)
    own, other = make(preset, device, dtype)
    graph = GraphStep(own, other, 6)
    for step in range(8):
        images, labels, ids, keys = batch(step)
        color = step < 6  # the source's scale changes with it
        share = plain.backward(
            augment.train(images.to(device), ids, ids, 0, color), labels, keys, 6
        )
        plain.update(rates_of(plain, step))
        draw, rates = other.draw(ids, ids, 0, color), rates_of(own, step)
        totals = graph.send(StepInput(images.to(device), draw, labels, keys, rates, 6)).read()
        assert totals == pytest.approx(share, rel=0 if device == "cpu" else 1e-4, abs=0)
    for name, value in plain.weights.items():
        if device == "cpu":
            assert torch.equal(own.weights[name], value) and torch.equal(
                own.velocities[name], plain.velocities[name]
            ), name
        else:
            torch.testing.assert_close(own.weights[name], value, rtol=1e-3, atol=1e-5)
    for name, value in plain.buffers.items():  # also by a capture's steps they are not changed
        torch.testing.assert_close(own.buffers[name], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_a_pack_that_stays_is_gathered_where_it_is_cropped(device):
    """And in blocks, in bfloat16: the same weights as from batches of images, also where they take
    turns."""
    (own, plain), (other, augment) = (make("paper", device, torch.bfloat16) for _ in range(2))
    augment = Augment(
        own.recipe, np.full((72, 72, 3), 117.0, np.float32), 64, COLOR, 5, torch.bfloat16,
        in_blocks(own.net.table[0], torch.bfloat16),
    )  # fmt: skip
    whole = torch.cat([batch(step)[0] for step in range(4)]).to(device)
    steps = GraphStep(own, plain, 6), GraphStep(other, augment, 6)
    for number in (0, 2, 1, 3):
        images, labels, ids, keys = batch(number)
        draw, rates = plain.draw(ids, ids, 0), rates_of(own, 0)
        given = images.to(device), Indexed(whole, ids.to(device))
        totals = []
        for step, pixels in zip(steps, (given[0], given[number > 0]), strict=True):
            totals.append(step.send(StepInput(pixels, draw, labels, keys, rates, 6)).read())
        assert totals[0] == pytest.approx(totals[1], rel=0 if device == "cpu" else 1e-4, abs=0)
    for name, value in own.weights.items():
        within = {"rtol": 0, "atol": 0} if device == "cpu" else {}
        torch.testing.assert_close(other.weights[name], value, **within)


def test_a_step_may_be_compiled_and_a_graph():
    """torch.compile traces the net's passes; by a backend that generates no code the numbers stay
    what they are to the bit."""
    results = []
    for compiled in (False, True):
        torch.manual_seed(3)
        recipe = presets.get("paper").recipe
        learner = Learner(AlexNet("paper", 4, 1 / 8, 64), recipe, Ranks("cpu"), compiled=compiled)
        if compiled:
            learner.call = torch.compile(learner.net, backend="aot_eager", dynamic=False)
        step = GraphStep(learner, make()[1], 6)
        for number in range(3):
            images, labels, ids, keys = batch(number)
            draw, rates = step.augment.draw(ids, ids, 0), rates_of(learner, 0)
            totals = step.send(StepInput(images, draw, labels, keys, rates, 6)).read()
        results.append((totals, learner.weights))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(value, results[1][1][name]) for name, value in results[0][1].items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_tensor_is_asked_for_its_value(dtype):
    """On the device "meta" tensors have none: whoever asks, as nobody may while a CUDA graph is
    recorded, fails."""
    learner, augment = make()
    learner = Learner(AlexNet("source", 4, 1 / 8, 64), learner.recipe, Ranks("meta"), dtype)
    graph = GraphStep(learner, augment, 6)
    images, labels, ids, keys = batch(0)
    drawn = augment.draw(ids, ids, 0)[:3]
    graph.inputs = [value.to("meta") for value in (images, *drawn, labels, keys)]
    graph.compute(1.0)
    with pytest.raises((RuntimeError, NotImplementedError)):
        float(graph.totals[0])


@pytest.mark.parametrize("device", DEVICES)
def test_a_loss_that_is_no_number_changes_no_weight(device):
    learner, augment = make(device=device)
    graph = GraphStep(learner, augment, 6)
    for step in range(2):
        images, labels, ids, keys = batch(step)
        before = {name: value.clone() for name, value in learner.weights.items()}
        if step:
            augment.mean = torch.full_like(augment.mean, torch.inf)
            graph.graphs.clear()
        draw, rates = augment.draw(ids, ids, 0), [0.003] * len(before)
        loss, _ = graph.send(StepInput(images.to(device), draw, labels, keys, rates, 6)).read()
        assert math.isfinite(loss) is (step == 0)
    assert all(torch.equal(value, before[name]) for name, value in learner.weights.items())
    assert all(bool(value.isfinite().all()) for value in learner.velocities.values())


def test_a_run_in_this_mode_is_the_plain_run_also_when_stopped(splits, tmp_path):
    """Stopped again and again: within an epoch, at its end, before the short last batch and after
    it."""
    plain, graph = (
        configure(splits, "source", epochs=2.0, batch_size=8, mode=mode)
        for mode in ("plain", "graph")
    )
    assert plain.identity != graph.identity
    steps = train(plain, splits, tmp_path / "plain", progress=False)["steps"]
    stops = list[int]()

    def on_steps(count):
        if count == 1:  # a step; else those that a checkpoint held
            signal.raise_signal(signal.SIGTERM)

    while not (tmp_path / "graph" / "summary.json").exists():
        try:
            train(
                graph,
                splits,
                tmp_path / "graph",
                resume=(tmp_path / "graph").exists(),
                progress=False,
                on_steps=on_steps,
            )
        except Interrupted as told:
            stops.append(int(re.search(r"at step (\d+)", str(told))[1]))
    assert (
        stops == sorted(set(stops)) and len(stops) >= steps // 2 - 1
    )  # each time it got on, by two steps at most
    weights = [load_file(tmp_path / mode / WEIGHTS) for mode in ("plain", "graph")]
    assert all(torch.equal(weights[1][name], value) for name, value in weights[0].items())
    assert log.losses(tmp_path / "graph") == log.losses(tmp_path / "plain")


def test_checkpoints_on_the_way_change_nothing(splits, tmp_path):
    runs = {}
    for every in (0.0, 300.0):
        config = configure(splits, "source", epochs=1.0, batch_size=6, mode="graph")
        train(config, splits, tmp_path / str(every), every=every, keep=100, progress=False)
        runs[every] = load_file(tmp_path / str(every) / WEIGHTS)
    assert all(torch.equal(runs[0.0][name], value) for name, value in runs[300.0].items())
    assert (
        len(list((tmp_path / "0.0" / "checkpoints").iterdir()))
        > len(list((tmp_path / "300.0" / "checkpoints").iterdir()))
        == 1
    )


def test_the_next_step_is_sent_before_the_last_is_read(splits, tmp_path, monkeypatch):
    """Else a GPU would wait while the host reads a loss and makes the next batch ready."""
    events = []
    send, read = GraphStep.send, Pending.read
    monkeypatch.setattr(GraphStep, "send", lambda *args: events.append("sent") or send(*args))
    monkeypatch.setattr(Pending, "read", lambda self: events.append("read") or read(self))
    train(
        configure(splits, "source", epochs=1.0, batch_size=9, mode="graph"),
        splits,
        tmp_path / "run",
        progress=False,
    )
    assert len(splits["train"]) == 4 * 9
    assert events == ["sent", "sent", "read", "sent", "read", "sent", "read", "read"]


@pytest.mark.parametrize("at", [1, 2, 4])
def test_it_diverges_as_the_plain_run_does(splits, tmp_path, monkeypatch, at):
    """A loss that is no number, though its weights are: the step that was sent after it must change
    nothing either."""
    cut = Augment.cut

    def spoiled(self, *args):
        spoiled.calls += 1
        return cut(self, *args) * (torch.nan if spoiled.calls == at else 1)

    monkeypatch.setattr(Augment, "cut", spoiled)
    ends = {}
    for mode in ("plain", "graph"):
        spoiled.calls = 0
        config = configure(splits, "paper/sigma-0.03", epochs=1.0, batch_size=8, mode=mode)
        ends[mode] = (
            train(config, splits, tmp_path / mode, progress=False),
            load_file(tmp_path / mode / WEIGHTS),
        )
    assert ends["plain"][0]["diverged_at"] == ends["graph"][0]["diverged_at"] == at
    assert all(
        torch.equal(ends["graph"][1][name], value) for name, value in ends["plain"][1].items()
    )


def test_compiling_needs_a_compiler(splits, tmp_path, monkeypatch):
    for cxx in ("no-such-compiler", "no-such-compiler -O3", ""):
        monkeypatch.setenv("CXX", cxx)
        with pytest.raises(InputError, match=r"needs a C\+\+ compiler.*use the mode plain"):
            train(configure(splits, mode="compiled"), splits, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("quick", "mode is 'quick'; it must be 'plain' or"),
        ("graph", "no graph can hold; use the mode plain"),
    ],
)
def test_modes_that_cannot_be(splits, tmp_path, mode, said):
    with pytest.raises(InputError, match=said):
        train(
            configure(splits, "paper/rate-outside", mode=mode),
            splits,
            tmp_path / "run",
            progress=False,
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("mode", "precision", "within", "seeds"),
    [
        ("graph", "fp32", 0, 1),
        pytest.param("compiled", "fp64", 1e-6, 3, marks=pytest.mark.slow),
        pytest.param("compiled-graph", "fp64", 1e-6, 1, marks=pytest.mark.slow),
    ],
)
def test_it_learns_as_it_does_plain(splits32, tmp_path, mode, precision, within, seeds):
    """The loss, smoothed over 20 steps, over 200 steps in which it falls to a hundredth. On a CPU a
    graph's steps are the eager ones, to the bit. Compiled kernels add in another order; in float32
    that alone parts two runs where the loss falls fastest, in float64 it does not show."""
    for seed in range(seeds):
        smooth = {}
        for each in ("plain", mode):
            out = tmp_path / f"{each}-{seed}"
            config = small(
                splits32, epochs=40.0, mode=each, seed=seed, rate=0.0003, precision=precision
            )
            assert train(config, splits32, out, progress=False)["steps"] == 200
            smooth[each] = np.convolve(log.losses(out), np.full(20, 1 / 20), mode="valid")
        assert smooth["plain"][-1] < 0.01 * smooth["plain"][0]
        np.testing.assert_allclose(smooth[mode], smooth["plain"], rtol=within)


@pytest.mark.parametrize(
    ("precision", "mode", "said"),
    [
        ("fp64", "auto", "float64 on this GPU is composite; use the mode plain"),
        ("bf16", "composite", "is composite; unset ALEXNET_KERNELS"),
        ("fp32", "torch", "is torch; unset ALEXNET_KERNELS"),
    ],
)
def test_what_no_graph_can_record_is_refused(splits, precision, mode, said):
    config = configure(splits, mode="graph", precision=precision)
    with kernels.using(mode):
        check_possible(config, splits, Ranks("cpu"))
        ranks = SimpleNamespace(device=torch.device("cuda"), world=1)
        with pytest.raises(InputError, match=said):
            check_possible(config, splits, ranks)


class Recorded:
    """Stands in for what torch.cuda records with, and notes how."""

    def __init__(self):
        self.captures, self.made = [], 0

    def graph(self, graph, **options):
        self.captures.append((graph, options))
        return nullcontext()

    def new_graph(self):
        self.made += 1
        number = self.made
        return SimpleNamespace(pool=lambda: f"pool {number}")


def test_graphs_share_memory_and_let_other_threads_go_on(monkeypatch):
    """The source's scale changes in mid-run, and a second graph is recorded while a loader's
    threads wait for their copies."""
    recorded, stream = Recorded(), SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda which: nullcontext(),
        "CUDAGraph": recorded.new_graph,
        "graph": recorded.graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    learner, augment = make()
    step = GraphStep(learner, augment, 6)
    images, labels, ids, keys = batch(0)
    step.inputs = [*(images, *augment.draw(ids, ids, 0)[:3]), labels, keys]
    before = {name: value.clone() for name, value in learner.weights.items()}
    for scale in (1.0, 0.5):
        step.graphs[scale] = step._capture(scale)
    (_, first), (_, second) = recorded.captures
    assert first == {"pool": None, "capture_error_mode": "thread_local"}
    assert second == {"pool": "pool 1", "capture_error_mode": "thread_local"}
    assert all(torch.equal(value, before[name]) for name, value in learner.weights.items())


class Launches(TorchDispatchMode):
    """Counts the operations that a GPU would be sent: neither views nor memory alone."""

    FREE = ("empty", "detach", "new_empty", "_unsafe_view", "promote_types")

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.split("::")[1]
        if not function.is_view and not name.startswith(self.FREE):
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


# what an operator launches on a GPU beside one kernel: its two kernels, the bias gradient's sum
MORE = {"response_norm_pool": 1, "response_norm_pool_backward": 2}


def test_a_step_is_sent_in_less_than_145_launches():
    """Of the paper's net in bfloat16, from a pack that stays; it was 362 while dropout hashed its
    masks in torch's own operators."""
    recipe = presets.get("paper").recipe
    learner = Learner(AlexNet("paper", 10, 1 / 8), recipe, Ranks("meta"), torch.bfloat16)
    mean = np.full((256, 256, 3), 117.0, np.float32)
    blocks = in_blocks(learner.net.table[0], torch.bfloat16)
    augment = Augment(recipe, mean, 224, COLOR, dtype=torch.bfloat16, blocks=blocks)
    step, ids = GraphStep(learner, augment, 2), torch.arange(2)
    step.pixels = torch.zeros(9, 256, 256, 3, dtype=torch.uint8, device="meta")
    given = (ids, *augment.draw(ids, ids, 0)[:3], ids, rng.key(rng.DROPOUT, 0, 0, ids))
    step.inputs = [value.to("meta") for value in given]
    step.compute(1.0)  # moves the mean image
    with Launches() as launches:
        step.compute(1.0)
    counts = launches.counts
    assert counts["keep_mask"] == 4 and counts["bitwise_xor"] == counts["zeros"] == 0
    assert blocks == (4, 228) and counts["index_select"] == 0
    assert counts["constant_pad_nd"] == 2 * 2  # conv1's weights as blocks, and back
    assert counts.total() + sum(MORE.get(name, 0) * n for name, n in counts.items()) < 145, counts
