"""`precision: auto`: bfloat16 where this machine trains a net faster in it, and computes it right.

A CPU's answer is measured once for each net and machine, and kept in precisions.json beside the
compiled operators. It never changes by itself, so that a run and its resumption agree.
"""

import copy
import statistics
import time
from contextlib import suppress
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from alexnet import presets
from alexnet.keys import key
from alexnet.network import AlexNet, Stage
from alexnet.training.learner import Learner
from alexnet.training.ranks import Ranks
from alexnet_kernels import machine
from alexnet_kernels.files import keep_choices, read_choices

INSTRUCTIONS = ("amx_bf16", "avx512_bf16")  # that multiply bfloat16; without them it is slow
NAME = "precisions.json"
FASTER = 1.15  # times: the least that is worth the lost digits, and is more than noise
TOLERANCE = 0.02  # relative error of a layer's sums and gradients; rounding makes some 0.005
BATCH = 32  # images, at most, of the steps that are timed
ROUNDS = 5


class Choice(NamedTuple):
    """A precision, and why it was chosen."""

    precision: Literal["fp32", "bf16"]
    why: str


def choose(
    preset: str,
    num_classes: int,
    width: float,
    image_size: int,
    batch_size: int,
    device: str | torch.device = "cpu",
    threads: int | None = None,
) -> Choice:
    """The precision to train a net in on this machine.

    Args:
        preset: The net; its variants are trained alike, so that they can be compared.
        threads: Of the process that trains; None: as many as torch has here.

    Returns:
        bf16 on a GPU that has it. On a CPU bf16 where its convolutions agree with fp32's in every
        layer and a step is FASTER times as fast or more; fp32 elsewhere.
    """
    if torch.device(device).type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return Choice("bf16", "the GPU has it") if has else Choice("fp32", "the GPU has no bf16")
    sets = [name for name in INSTRUCTIONS if name in machine.instruction_sets()]
    if not sets:
        return Choice("fp32", f"the processor has neither {' nor '.join(INSTRUCTIONS)}")
    threads = threads or torch.get_num_threads()
    net = (preset.split("/")[0], num_classes, width, image_size, min(batch_size, BATCH))
    place = [machine.processor(), sets, str(torch.__version__), threads, *net]
    known = read_choices(NAME)
    with suppress(KeyError, TypeError, ValueError):
        precision, why = known[key(place)]
        if precision in ("fp32", "bf16"):
            return Choice(precision, why)
    choice = _measure(*net, threads)
    keep_choices(NAME, {**known, key(place): choice})
    return choice


def _measure(
    preset: str, classes: int, width: float, size: int, batch: int, threads: int
) -> Choice:
    before, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(threads)
    try:
        net = AlexNet(preset, classes, width, size)
        if wrong := wrong_layers(net):
            named = ", ".join(wrong)
            return Choice("fp32", f"this torch computes {named} wrong in bf16 on this processor")
        ratio = speedup(net, batch)
    finally:
        torch.set_num_threads(before)
        torch.set_rng_state(state)
    measured = f"a step in bf16 was measured to be {ratio:.2f} times as fast as in fp32"
    if ratio >= FASTER:
        return Choice("bf16", measured)
    return Choice("fp32", f"{measured}; less than {FASTER} is not worth it")


def wrong_layers(net: AlexNet) -> list[str]:
    """The layers of a float32 net whose weighted sums or gradients in bfloat16 differ from those in
    float32 by more than rounding. Some releases of torch computed wrong convolutions."""
    return [
        row.layer.name
        for row in net.table
        if not max(_differences(net.stages(row.layer.name)[0])) <= TOLERANCE  # NaN is wrong as well
    ]


def _differences(stage: Stage) -> list[float]:
    """Relative errors in bfloat16: of a layer's sums, of its weights' and its input's gradients."""
    layer, size = stage.shape.layer, stage.shape.in_size
    generator = torch.Generator().manual_seed(0)
    shape = (stage.shape.in_maps, size, size) if layer.kernel else (stage.weight.shape[1],)
    x = torch.randn(8, *shape, generator=generator).bfloat16()
    with torch.no_grad():
        stage = copy.deepcopy(stage)
        stage.weight.copy_(stage.weight.bfloat16())  # so that both compute with the same numbers
    results = {}
    for dtype in (torch.float32, torch.bfloat16):
        own = copy.deepcopy(stage).to(dtype)
        if layer.kernel and dtype == torch.bfloat16:
            own.to(memory_format=torch.channels_last)
        given = x.to(dtype).requires_grad_(layer.reads != "image")
        sums = own.weighted_sums(own.prepared(given) if layer.kernel else given, None)
        dy = torch.randn(sums.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
        sums.backward(dy.to(dtype))
        results[dtype] = [t for t in (sums.detach(), own.weight.grad, given.grad) if t is not None]
    pairs = zip(results[torch.bfloat16], results[torch.float32], strict=True)
    return [_relative(half.float(), exact) for half, exact in pairs]


def _relative(value: Tensor, exact: Tensor) -> float:
    return float((value - exact).norm() / exact.norm())


def speedup(net: AlexNet, batch: int) -> float:
    """How many times as fast a training step is in bfloat16: the ratio of medians over steps taken
    in turn.

    Args:
        net: Copies of it take the steps, on noise; it stays as it is.
        batch: Images of a step.
    """
    size, recipe = net.table[0].in_size, presets.get("paper").recipe
    images, labels = torch.randn(batch, 3, size, size), torch.zeros(batch, dtype=torch.int64)
    keys, times = torch.arange(batch), dict[torch.dtype, list[float]]()
    learners = {}
    for dtype in (torch.float32, torch.bfloat16):
        learners[dtype], times[dtype] = Learner(copy.deepcopy(net), recipe, Ranks(), dtype), []
    form = {torch.bfloat16: torch.channels_last, torch.float32: torch.contiguous_format}
    for number in range(ROUNDS + 2):  # the first ones gather memory and compile
        for dtype, learner in learners.items():
            own = images.to(dtype).contiguous(memory_format=form[dtype])
            began = time.perf_counter()
            learner.backward(own, labels, keys, batch)
            learner.update([0.0] * len(learner.parameters))
            times[dtype] += [time.perf_counter() - began] * (number >= 2)
    return statistics.median(times[torch.float32]) / statistics.median(times[torch.bfloat16])
