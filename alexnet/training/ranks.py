"""The processes that train one net together (section 3.2 of the paper): what `torchrun` started, or this one alone.

They form a mesh (data, column). The ranks of a row hold the columns of one net, see the same images, and meet by `alexnet.exchange`. Each
row takes its share of every batch; the ranks of a mesh's column hold copies of the same weights and sum their gradients. Nothing else is
ever exchanged but a few numbers a step: losses, errors, and whether somebody was asked to stop.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from alexnet.errors import InputError, SharedError
from alexnet.exchange import Across, Together, Waits, reaching_others

TIMEOUT = 600.0  # seconds without any progress after which a run is given up


class Ranks:
    """This process's place. Made by `join`, or by `Ranks()` for a process alone; the rest is the same for both."""

    def __init__(self, device: str | torch.device = "cpu"):
        self.rank, self.world, self.device = 0, 1, torch.device(device)
        self.row, self.rows, self.column = 0, 1, 0
        self.exchange = Together()
        self.peers: dist.ProcessGroup | None = None  # the same columns in the other rows
        self.ticks = 0  # signs of life
        self.step = 0  # for whoever asks where a rank hangs
        self._store: dist.Store | None = None
        self._left = threading.Event()
        self._calls = 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def shard(self) -> tuple[int, int]:
        """Which part of every batch is this row's, of how many."""
        return self.row, self.rows

    @property
    def keeps(self) -> bool:
        """Whether this rank writes its columns into checkpoints: one row does."""
        return self.row == 0

    def tick(self) -> None:
        self.ticks += 1

    def totals(
        self, numbers: Sequence[float] = (), flags: Sequence[bool] = ()
    ) -> tuple[list[float], list[bool]]:
        """Each number's sum over the rows, and of each flag whether it is set on any rank. The ranks of a row pass the same numbers."""
        self.tick()
        if self.world == 1:
            return list(numbers), list(flags)
        own = [*numbers] if self.column == 0 else [0.0] * len(numbers)
        told = torch.tensor([*own, *map(float, flags), 0.0], dtype=torch.float64)
        with reaching_others():
            dist.all_reduce(told)
        sums = told.tolist()[:-1]
        return sums[: len(own)], [flag > 0 for flag in sums[len(own) :]]

    def meet(self) -> None:
        """Returns when all ranks are here."""
        self.totals()

    def first(self, call: Callable[[], object]) -> None:
        """call() on rank 0 alone. Returns when it has, and raises its InputError on every rank."""
        problem = ""
        if self.is_first:
            try:
                call()
            except InputError as error:
                if self.world == 1:
                    raise
                problem = str(error)
        if self._store is not None:
            self._calls += 1
            with reaching_others():
                if self.is_first:
                    self._store.set(f"first/{self._calls}", json.dumps(problem))
                problem = json.loads(self._store.get(f"first/{self._calls}"))
        if problem:
            raise SharedError(problem)

    def one_word(self) -> str:
        """The same on all ranks, and never twice."""
        if self._store is None:
            return f"{os.getpid()}-{time.monotonic_ns()}"
        self._calls += 1
        with reaching_others():
            if self.is_first:
                self._store.set(f"word/{self._calls}", f"{os.getpid()}-{time.monotonic_ns()}")
            return self._store.get(f"word/{self._calls}").decode()

    def leave(self) -> None:
        """At the end. A process that fails just ends: it cannot know whether the others still answer."""
        self._left.set()
        if self.world > 1:
            self.meet()
            dist.destroy_process_group()


class Gradients:
    """Sums the gradients of `parameters` over the rows of the mesh, each as soon as the backward pass has made it."""

    def __init__(self, parameters: Iterable[Tensor], ranks: Ranks, overlap: bool = True):
        self.ranks, self.overlap = ranks, overlap
        self._under_way: list[dist.Work] = []
        self._waits = Waits()
        self.bytes = 0  # summed so far
        if ranks.peers is not None:
            for parameter in parameters:
                parameter.register_post_accumulate_grad_hook(self._sum)

    def _sum(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.bytes += parameter.grad.nbytes
        with reaching_others():
            work = dist.all_reduce(parameter.grad, group=self.ranks.peers, async_op=True)
        if work is not None:
            self._under_way.append(work)
            if not self.overlap:
                self.wait()

    def wait(self) -> None:
        """Until all sums are there."""
        if self._under_way:
            with self._waits.waiting(self.ranks.device.type == "cuda"):
                for work in self._under_way:
                    work.wait()
            self._under_way.clear()

    def seconds(self) -> float:
        """Waited for sums since the last call."""
        return self._waits.seconds()


def launched() -> bool:
    """Whether `torchrun`, or something like it, started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def join(
    columns: int, device: str = "cpu", column_ranks: int | None = None, timeout: float = TIMEOUT
) -> Ranks:
    """The place of a process that `torchrun` started, once all of them have joined; `Ranks(device)` for any other.

    columns: of the net. column_ranks: over how many ranks they are spread; as many as there are columns where the ranks allow it, else 1.
    device: "cpu" (messages by gloo) or "cuda", of which each rank takes its own (NCCL); ranks that share one device talk by gloo, or by
    NCCL where NCCL_MULTI_RANK_GPU_ENABLE=1 lets it. timeout: seconds without progress after which the ranks stop and say which of them
    hangs.
    Raises InputError where the ranks do not make a mesh, RuntimeError that names those that do not come in time.
    """
    if not launched():
        if column_ranks is not None:
            raise InputError(
                "--column-ranks is for several ranks, which `torchrun --nproc-per-node N -m alexnet train ...` starts"
            )
        return Ranks(device)
    world = int(os.environ["WORLD_SIZE"])
    spread = column_ranks if column_ranks is not None else columns if world % columns == 0 else 1
    if spread < 1 or world % spread or columns % spread:
        what = f"the number of ranks, which is {world}, and that of the net's columns, which is {columns}"
        raise SharedError(
            f"--column-ranks {spread} does not divide both {what}; choose one that does"
        )
    local = int(os.environ.get("LOCAL_RANK", 0))
    backend = "gloo"
    if device.startswith("cuda"):
        there, here = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", world))
        if here <= there or os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE", "0") == "1":
            backend = "cpu:gloo,cuda:nccl"
        device = f"cuda:{local % there}"
        torch.cuda.set_device(device)
    ranks = Ranks(device)
    if world == 1:
        return ranks
    # torchrun keeps one store for all its restarts: what an earlier start wrote there must not be found
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    ranks.rank, ranks.world = int(os.environ["RANK"]), world
    ranks._store = dist.PrefixStore(f"alexnet/{attempt}", _gather(ranks, timeout, attempt))
    _watch(ranks, timeout, attempt)
    longer = timedelta(seconds=2 * timeout + 30)  # the watch is to speak first
    dist.init_process_group(
        backend, store=ranks._store, rank=ranks.rank, world_size=world, timeout=longer
    )
    mesh = init_device_mesh(
        "cuda" if "nccl" in backend else "cpu",
        (world // spread, spread),
        mesh_dim_names=("data", "column"),
    )
    ranks.row, ranks.column = (mesh.get_local_rank(name) for name in ("data", "column"))
    ranks.rows = world // spread
    if ranks.rows > 1:
        ranks.peers = mesh.get_group("data")
    if spread > 1:
        ranks.exchange = Across(mesh.get_group("column"), enter=ranks.tick)
    return ranks


def _gather(ranks: Ranks, timeout: float, attempt: str) -> dist.Store:
    """The store by which all ranks find each other, once all have come. The launcher keeps it, or else rank 0."""
    keeps = ranks.is_first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    address, port, longest = (
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        timedelta(seconds=timeout),
    )
    where = f"MASTER_ADDR={address} MASTER_PORT={port}"
    try:
        store = dist.TCPStore(
            address,
            port,
            is_master=keeps,
            timeout=longest,
            wait_for_workers=False,
            multi_tenant=True,
        )
    except RuntimeError as error:
        if keeps:
            raise
        raise RuntimeError(
            f"rank 0 did not come within {timeout:g} s to {where}; start it, or mend the address"
        ) from error
    came = [f"came/{attempt}/{rank}" for rank in range(ranks.world)]
    store.set(came[ranks.rank], "")
    try:
        store.wait(came, longest)
    except RuntimeError as error:
        missing = " and ".join(
            f"rank {rank}" for rank, key in enumerate(came) if not store.check([key])
        )
        told = f"{missing} did not come within {timeout:g} s; start all {ranks.world} with {where}, or raise --timeout"
        raise RuntimeError(told) from error
    return store


def _watch(ranks: Ranks, timeout: float, attempt: str) -> None:
    """Starts a thread that tells the others how far this rank is. When it gets no further for `timeout` seconds, the thread says for whom
    the ranks wait, and ends them.

    Every message counts as a sign of life, before it is waited for; so the rank that others wait for is the one with the fewest. A launcher
    that was killed leaves no rank behind: they stop as if they had been asked to.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    own = dist.TCPStore(
        address, port, is_master=False, timeout=timedelta(seconds=timeout)
    )  # a connection for the thread alone
    store = dist.PrefixStore(f"watch/{attempt}", own)
    where, pause, launcher = (
        f"{socket.gethostname()}, process {os.getpid()}",
        min(1.0, timeout / 8),
        os.getppid(),
    )
    store.set(str(ranks.rank), json.dumps([0, where]))

    def watch() -> None:
        seen, since = 0, time.monotonic()
        while not ranks._left.wait(pause):
            if os.getppid() != launcher:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            try:
                if ranks.ticks != seen:
                    seen, since = ranks.ticks, time.monotonic()
                    store.set(str(ranks.rank), json.dumps([seen, where]))
                if time.monotonic() - since <= timeout:
                    continue
                told = [json.loads(store.get(str(rank))) for rank in range(ranks.world)]
                first = store.add("accused", 1) == 1
            except RuntimeError:  # the store's keeper has ended, or a rank never came
                continue
            if first:  # the one that noticed first speaks for all
                said = f"{_accusation(told, timeout)}, in step {ranks.step + 1}; stopping all ranks"
                print(
                    f"alexnet: {said}. The same command with --resume goes on from the last checkpoint",
                    file=sys.stderr,
                    flush=True,
                )
            time.sleep(pause)  # let the rest read what they need
            os._exit(1)

    threading.Thread(target=watch, name="watch", daemon=True).start()


def _accusation(told: list[tuple[int, str]], timeout: float) -> str:
    """Which rank hangs. told: of each rank its signs of life, and where it is."""
    fewest = min(ticks for ticks, _ in told)
    behind = " and ".join(
        f"rank {rank} ({where})" for rank, (ticks, where) in enumerate(told) if ticks == fewest
    )
    others = " and ".join(f"rank {rank}" for rank, (ticks, _) in enumerate(told) if ticks > fewest)
    return f"{behind} made no progress for {timeout:g} s" + (
        f", while {others} waited" if others else ""
    )
