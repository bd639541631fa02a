"""What several ranks do in the tests: `python -m tests.rank_jobs '{"world": 2, "job": "train"}'`.

Each argument is one job. All of a job's ranks are forked from this process, which has imported
torch once, and run to their end before the next job begins; what each printed and how it ended is
printed as one line of JSON a job.
"""

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError

import alexnet_kernels as kernels
from alexnet import presets, rng, training
from alexnet.data.pack import open_splits
from alexnet.errors import InputError
from alexnet.exchange import Across
from alexnet.network import AlexNet
from alexnet.training import checkpoint
from alexnet.training.learner import Learner
from alexnet.training.ranks import Ranks, join
from tests.runs import with_running_mean

ROOT = Path(__file__).resolve().parents[1]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# --- the jobs: each is called in every rank ---


def train(
    config: dict,
    data: str,
    out: str,
    columns: int | None = None,
    fault: dict | None = None,
    timeout: float = 60.0,
    start: str | None = None,
    apart: bool = False,
    **options,
) -> None:
    """Train as the command line does, with a checkpoint after every step.

    Args:
        fault: Such as {"rank": 1, "kind": "step", "at": 8}.
        apart: Each rank in a folder of its own.
    """
    options["every"] = 0.0
    settings = training.Config(**config)
    ranks = join(presets.get(settings.preset).columns, "cpu", columns, timeout)
    if fault is not None and fault.pop("rank") == ranks.rank:
        options["on_steps"] = break_down(**fault)
    folder = Path(out) / str(ranks.rank) if apart else Path(out)
    training.train(
        settings,
        open_splits(Path(data)),
        folder,
        start=Path(start) if start else None,
        ranks=ranks,
        progress=False,
        **options,
    )
    ranks.leave()


def break_down(kind: str, at: int):
    """Something that goes wrong: `at` counts steps, or files, or flushes to the disk."""
    calls = 0

    def count() -> bool:
        nonlocal calls
        calls += 1
        return calls == at

    def on_steps(steps: int) -> None:
        if kind in ("step", "term", "int", "stop", "sleep", "limit") and steps and count():
            if kind == "step":
                die()
            elif kind == "sleep":
                time.sleep(3600)
            elif kind == "limit":  # as a full disk, for every file from now on
                import resource

                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            else:
                os.kill(
                    os.getpid(),
                    {"term": signal.SIGTERM, "int": signal.SIGINT, "stop": signal.SIGSTOP}[kind],
                )

    def half_a_file(tensors, path):
        save_file(tensors, path)
        if count():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            die()

    def flush(path):
        if count():
            die()
        settle(path)

    def full(tensors, path):
        if path.name.startswith("..column-"):  # at the very end, on its way to rank 0
            raise SafetensorError(
                "Error while serializing: I/O error: No space left on device (os error 28)"
            )
        save_file(tensors, path)

    save_file, settle = checkpoint.save_file, checkpoint.flush
    if kind == "file":
        checkpoint.save_file = half_a_file
    elif kind == "flush":
        checkpoint.flush = flush
    elif kind == "gather":
        checkpoint.save_file = full
    return on_steps


def meet(channels_last: bool) -> None:
    """Across is Together: outputs, gradients and counts."""
    ranks = join(2, "cpu")
    across = ranks.exchange
    assert isinstance(across, Across) and list(across.own_columns(2)) == [ranks.rank]
    torch.manual_seed(0)
    whole = torch.randn(3, 8, 5, 4, dtype=torch.float64)
    if channels_last:
        whole = whole.contiguous(memory_format=torch.channels_last)
    weights = torch.randn(2, 3, 8, 5, 4, dtype=torch.float64)  # another use on each rank
    mine = whole.chunk(2, 1)[ranks.rank].clone(memory_format=torch.preserve_format).requires_grad_()
    read = across.gather([mine], "conv3")
    assert (
        torch.equal(read, whole)
        and read.is_contiguous(memory_format=torch.channels_last) == channels_last
    )
    (read * weights[ranks.rank]).sum().backward()
    assert torch.equal(mine.grad, weights.sum(0).chunk(2, 1)[ranks.rank])
    logits = torch.randn(2, 3, 7, dtype=torch.float64)
    part = logits[ranks.rank].clone().requires_grad_()
    whole = across.sum([part], "fc8")
    assert torch.equal(whole, logits.sum(0))
    whole.square().sum().backward()
    assert torch.equal(part.grad, 2 * logits.sum(0))
    assert across.sent == {
        ("conv3", "forward"): 240,
        ("conv3", "backward"): 240,
        ("fc8", "forward"): 21,
    }
    assert across.seconds() > 0 == across.seconds()
    empty = across.gather([torch.empty(0, 4, 5, 4, requires_grad=True)], "conv3")
    empty.sum().backward()
    assert empty.shape == (0, 8, 5, 4) and across.sent["conv3", "forward"] == 240
    ranks.leave()


def wait(absent: int, timeout: float) -> None:
    """For a rank that never comes."""
    if os.environ["RANK"] != str(absent):
        join(2, "cpu", timeout=timeout)


def rows() -> None:
    """Two rows see other images: buffers become their mean, whole numbers stay."""
    ranks = join(2, "cpu", column_ranks=1)
    net = with_running_mean(AlexNet("paper", 3, 1 / 16, 64))
    net.stages("conv1")[0].register_buffer("batches", torch.tensor(7 + ranks.rank))
    learner = Learner(net, presets.get("paper").recipe, ranks)
    images = torch.full((2, 3, 64, 64), 60.0 * (1 + ranks.row))
    learner.backward(images, torch.tensor([0, 1]), torch.arange(2), 4)
    alone = with_running_mean(AlexNet("paper", 3, 1 / 16, 64))
    alone(torch.full((1, 3, 64, 64), 90.0))
    for stage, expected in zip(net.stages("conv1"), alone.stages("conv1"), strict=True):
        torch.testing.assert_close(stage.running_mean, expected.running_mean)
    assert int(net.stages("conv1")[0].batches) == 7 + ranks.rank
    assert learner.gradients.seconds() > 0
    ranks.leave()


def full_net() -> None:
    """One step of the full net at batch 2, dropout on: each column as in one process; prints what
    crosses, per image."""
    ranks = join(2, "cpu")
    torch.manual_seed(3)
    images, labels, keys = (
        60 * torch.randn(2, 3, 224, 224),
        torch.tensor([3, 977]),
        rng.key(rng.DROPOUT, 0, 0, torch.arange(2)),
    )

    def stepped(exchange, place):
        torch.manual_seed(4)
        learner = Learner(AlexNet("paper", exchange=exchange), presets.get("paper").recipe, place)
        loss, _ = learner.backward(images, labels, keys, 2)
        learner.update([0.01] * len(learner.parameters))
        return loss, learner

    loss, apart = stepped(ranks.exchange, ranks)
    expected, together = stepped(None, Ranks())
    assert abs(loss - expected) <= 1e-6 * abs(expected), (loss, expected)
    for name, value in apart.weights.items():
        torch.testing.assert_close(value, together.weights[name], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(
            apart.velocities[name], together.velocities[name], rtol=1e-4, atol=1e-9
        )
    if ranks.is_first:
        print(
            json.dumps(
                {
                    f"{layer} {direction}": n // 2
                    for (layer, direction), n in ranks.exchange.sent.items()
                }
            )
        )
    ranks.leave()


# --- forking ---


def fork(
    world: int, job: str, limit: float = 120.0, kill: tuple[int, float] | None = None, **options
) -> dict:
    """Run one job.

    Args:
        world: The number of ranks.
        limit: Seconds after which all are killed.
        kill: A rank, and after how many seconds it is killed.

    Returns:
        Each rank's exit status (negative: the signal's number), output, and the seconds it took;
        and the names of the checkpoints that a run in `out` then has.
    """
    store = dist.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )  # a launcher's, which no rank's end takes away
    began, children, outputs = time.monotonic(), [], []
    for rank in range(world):
        output = tempfile.TemporaryFile("w+")  # noqa: SIM115 (read when the rank has ended)
        outputs.append(output)
        child = os.fork()
        if not child:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            torch.set_num_threads(1)
            if world > 1:
                place = {
                    "RANK": rank,
                    "LOCAL_RANK": rank,
                    "WORLD_SIZE": world,
                    "LOCAL_WORLD_SIZE": world,
                }
                os.environ |= {name: str(value) for name, value in place.items()}
                os.environ |= {
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(store.port),
                    "TORCHELASTIC_USE_AGENT_STORE": "True",
                }
            status = 1
            try:
                globals()[job](**options)
                status = 0
            except (InputError, OSError) as end:  # as the command line says it
                print(f"alexnet: {end}")
                status = 2 if isinstance(end, InputError) else 1
            except KeyboardInterrupt as end:
                print(end)
                status = 128 + getattr(end, "signal", signal.SIGINT)
            except Exception:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        children.append(child)
    ended: dict[int, float] = {}
    statuses: dict[int, int] = {}
    while len(statuses) < world:
        for rank, child in enumerate(children):
            if rank not in statuses and (found := os.waitpid(child, os.WNOHANG))[0]:
                statuses[rank], ended[rank] = (
                    os.waitstatus_to_exitcode(found[1]),
                    time.monotonic() - began,
                )
        if kill and time.monotonic() - began > kill[1]:
            if kill[0] not in statuses:
                os.kill(children[kill[0]], signal.SIGKILL)
            kill = None
        # what a launcher does: the first failure, or too long a time, ends them all
        failed = [rank for rank, status in statuses.items() if status]
        if (
            failed and time.monotonic() - began - min(ended[r] for r in failed) > 10
        ) or time.monotonic() - began > limit:
            for rank, child in enumerate(children):
                if rank not in statuses:
                    os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    texts, folder = [], Path(options.get("out", ""))
    for output in outputs:
        output.seek(0)
        texts.append(output.read())
    return {
        "statuses": [statuses[r] for r in range(world)],
        "outputs": texts,
        "seconds": [round(ended[r], 2) for r in range(world)],
        "checkpoints": [path.name for path in checkpoint.steps(folder / "checkpoints")],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    kernels.max_pool(
        torch.zeros(1, 1, 3, 3)
    )  # the first call of an operator imports much, which all ranks then have
    for argument in sys.argv[1:]:
        print(json.dumps(fork(**json.loads(argument))), flush=True)
