"""The processes that train one net together (section 3.2 of the paper).

They are those that `torchrun` started, or this one alone, and form a mesh (data, column). The ranks
of a row hold the columns of one net, see the same images, and meet by `alexnet.exchange`. Each row
takes its share of every batch; the ranks of a mesh's column hold copies of the same weights and sum
their gradients. Else only a few numbers a step are exchanged: losses, errors, buffers such as
running means, and whether somebody asked the run to stop.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from alexnet.errors import InputError, SharedError, require
from alexnet.exchange import Across, Stopwatch, Together, reaching_others
from alexnet.processes import cores

TIMEOUT = 600.0  # seconds without any progress after which a run is given up


class Ranks:
    """This process's place in the mesh: made by `join`, or by `Ranks()` for a process alone."""

    def __init__(self, device: str | torch.device = "cpu"):
        self.rank, self.world, self.device = 0, 1, torch.device(device)
        self.row, self.rows, self.column = 0, 1, 0
        self.exchange = Together()
        self.peers: dist.ProcessGroup | None = None  # the same columns in the other rows
        self.ticks = 0  # signs of life
        self.step = 0  # steps taken, for the watch's message
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

    def tick(self) -> None:
        self.ticks += 1

    def totals(
        self, numbers: Sequence[float] = (), flags: Sequence[bool] = ()
    ) -> tuple[list[float], list[bool]]:
        """Sum numbers over the rows, and combine flags of all ranks.

        Args:
            numbers: The same on all ranks of a row.

        Returns:
            The sums, and of each flag whether it is set on any rank.
        """
        self.tick()
        if self.world == 1:
            return list(numbers), list(flags)
        own = [*numbers] if self.column == 0 else [0.0] * len(numbers)
        message = torch.tensor([*own, *map(float, flags), 0.0], dtype=torch.float64)
        with reaching_others():
            dist.all_reduce(message)
        sums = message.tolist()[:-1]
        return sums[: len(own)], [flag > 0 for flag in sums[len(own) :]]

    def meet(self) -> None:
        """Return when all ranks have come to this point."""
        self.totals()

    def first(self, call: Callable[[], object]) -> None:
        """Call a function on rank 0 alone; return when it has, and raise its InputError on every
        rank."""
        problem = ""
        if self.is_first:
            try:
                call()
            except InputError as error:
                if self.world == 1:
                    raise
                problem = str(error)
        if problem := self._share("first", problem):
            raise SharedError(problem)

    def one_word(self) -> str:
        """A word that is the same on all ranks, and never comes twice."""
        return self._share("word", f"{os.getpid()}-{time.monotonic_ns()}")

    def _share(self, purpose: str, text: str) -> str:
        """Rank 0's text."""
        if self._store is None:
            return text
        self._calls += 1
        name = f"{purpose}/{self._calls}"
        with reaching_others():
            if self.is_first:
                self._store.set(name, json.dumps(text))
            return json.loads(self._store.get(name))

    def leave(self) -> None:
        """End the membership. A process that fails just ends: it cannot know whether the others
        still answer."""
        self._left.set()
        if self.world > 1:
            self.meet()
            dist.destroy_process_group()


class Gradients:
    """Makes the rows of the mesh agree after each backward pass.

    Gradients are summed over the rows, each as soon as the backward pass has made it; buffers of
    floats, such as running means, are averaged.

    Args:
        overlap: Do not wait for each sum before the backward pass goes on.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        ranks: Ranks,
        overlap: bool = True,
        buffers: Iterable[Tensor] = (),
    ):
        self.ranks, self.overlap = ranks, overlap
        self.buffers = [buffer for buffer in buffers if buffer.is_floating_point()]
        self._under_way: list[dist.Work] = []
        self._waited, self._on_gpu = Stopwatch(), ranks.device.type == "cuda"
        self.bytes = 0  # of gradients summed so far
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
                self._wait()

    def _wait(self) -> None:
        if self._under_way:
            with reaching_others(), self._waited.running(self._on_gpu):
                for work in self._under_way:
                    work.wait()
            self._under_way.clear()

    def wait(self) -> None:
        """Return when the rows agree."""
        self._wait()
        if self.buffers and self.ranks.peers is not None:
            message = torch.cat([buffer.flatten() for buffer in self.buffers])
            with reaching_others(), self._waited.running(self._on_gpu):
                dist.all_reduce(message, group=self.ranks.peers)
            message /= self.ranks.rows
            sizes = [buffer.numel() for buffer in self.buffers]
            for buffer, mean in zip(self.buffers, message.split(sizes), strict=True):
                buffer.copy_(mean.view_as(buffer))

    def seconds(self) -> float:
        """Seconds waited for the other rows since the last call."""
        return self._waited.seconds()


def join(
    columns: int, device: str = "cpu", column_ranks: int | None = None, timeout: float = TIMEOUT
) -> Ranks:
    """Find this process's place: among the ranks that `torchrun` started, once all have joined, or
    alone.

    Args:
        columns: Of the net.
        device: "cpu" (messages by gloo), or "cuda", of which each rank takes its own (NCCL). Ranks
            that share one device talk by gloo, or by NCCL where NCCL_MULTI_RANK_GPU_ENABLE is 1.
        column_ranks: Over how many ranks the columns are spread; by default as many as there are
            columns, where the number of ranks allows it, else 1.
        timeout: Seconds without progress after which the ranks stop and name the one that stalls.

    Raises:
        InputError: The ranks do not make a mesh.
        RuntimeError: Ranks do not come in time; the message names them.
    """
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():  # which torchrun and the like set
        require(
            column_ranks is None,
            "--column-ranks is for several ranks, which `torchrun --nproc-per-node N -m alexnet "
            "train ...` starts",
        )
        return Ranks(device)
    world = _number("WORLD_SIZE", 1, 2**16)
    rank = _number("RANK", 0, world - 1)
    spread = column_ranks if column_ranks is not None else columns if world % columns == 0 else 1
    if spread < 1 or world % spread or columns % spread:
        both = f"the number of ranks, which is {world}, and that of columns, which is {columns}"
        raise SharedError(
            f"--column-ranks {spread} does not divide both {both}; choose one that does"
        )
    _take_cores(int(os.environ.get("LOCAL_WORLD_SIZE", world)))
    device, backend = _own_device(device, world)
    ranks = Ranks(device)
    if world == 1:
        return ranks
    # torchrun keeps one store for all its restarts: entries of an earlier start must not be read
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    ranks.rank, ranks.world = rank, world
    ranks._store = dist.PrefixStore(f"alexnet/{attempt}", _gather(ranks, timeout, attempt))
    _watch(ranks, timeout, attempt)
    longer = timedelta(seconds=2 * timeout + 30)  # the watch is to speak first
    with _naming_the_network():
        dist.init_process_group(backend, None, longer, world, rank, ranks._store)
    kind, shape = "cuda" if "nccl" in backend else "cpu", (world // spread, spread)
    mesh = init_device_mesh(kind, shape, mesh_dim_names=("data", "column"))
    ranks.row, ranks.column = (mesh.get_local_rank(name) for name in ("data", "column"))
    ranks.rows = world // spread
    if ranks.rows > 1:
        ranks.peers = mesh.get_group("data")
    if spread > 1:
        ranks.exchange = Across(mesh.get_group("column"), enter=ranks.tick)
    return ranks


def _number(name: str, least: int, most: int) -> int:
    """A number that a launcher has set.

    Raises:
        InputError: It is none, or out of range.
    """
    text = os.environ.get(name, "")
    fits = text.isdecimal() and least <= int(text) <= most
    remedy = "start ranks by `torchrun --nproc-per-node N -m alexnet train ...`, which sets it"
    require(
        fits, f"{name} is {text!r} in the environment, no number from {least} to {most}; {remedy}"
    )
    return int(text)


NETWORK = "name the network that they share in GLOO_SOCKET_IFNAME, as `ip address` lists it"


@contextmanager
def _naming_the_network() -> Iterator[None]:
    """Say what helps where ranks have found the store, but not each other."""
    try:
        yield
    except RuntimeError as error:
        first, *_ = str(error).splitlines() or [type(error).__name__]
        raise RuntimeError(f"the ranks cannot reach each other ({first}); {NETWORK}") from error


def _take_cores(ranks: int) -> None:
    """Take this rank's share of the cores, of as many as run on this machine, where torchrun has
    set one thread because nobody had set any."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("OMP_NUM_THREADS") != "1":
        return
    try:  # what torchrun was started with
        given = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return
    if not any(entry.startswith(b"OMP_NUM_THREADS=") for entry in given):
        torch.set_num_threads(max(1, cores() // ranks))


def _own_device(device: str, world: int) -> tuple[str, str]:
    """This rank's device, and the backend for its messages."""
    if not device.startswith("cuda"):
        return device, "gloo"
    devices, local_ranks = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", world))
    own = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % devices}"
    torch.cuda.set_device(own)
    shared = os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE", "0") == "1"
    return own, "cpu:gloo,cuda:nccl" if local_ranks <= devices or shared else "gloo"


def _gather(ranks: Ranks, timeout: float, attempt: str) -> dist.Store:
    """The store by which all ranks find each other, once all have come. The launcher keeps it, or
    else rank 0."""
    keeps = ranks.is_first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    address, port = os.environ.get("MASTER_ADDR"), _number("MASTER_PORT", 1, 2**16 - 1)
    require(
        address, "MASTER_ADDR is not set; give all ranks the name or address of rank 0's machine"
    )
    where = f"MASTER_ADDR={address} MASTER_PORT={port}"
    try:
        store = _connect(timeout, is_master=keeps, wait_for_workers=False, multi_tenant=True)
    except RuntimeError as error:
        if keeps and "EADDRINUSE" in str(error):
            taken = f"MASTER_PORT {os.environ['MASTER_PORT']} is in use on this machine"
            raise InputError(
                f"{taken}, as by another run; choose another (torchrun --standalone takes a free "
                "one)"
            ) from None
        if keeps:
            problem = f"rank 0 cannot reach itself by {where}"
            remedy = "give all ranks a name or address that this machine has"
            raise RuntimeError(f"{problem} ({str(error).splitlines()[0]}); {remedy}") from error
        raise RuntimeError(
            f"rank 0 did not come within {timeout:g} s to {where}; start it, or mend the address"
        ) from error
    names = [f"came/{attempt}/{rank}" for rank in range(ranks.world)]
    store.set(names[ranks.rank], "")
    try:
        store.wait(names, timedelta(seconds=timeout))
    except RuntimeError as error:
        missing = [rank for rank, name in enumerate(names) if not store.check([name])]
        remedy = f"start all {ranks.world} with {where}, or raise --timeout"
        raise RuntimeError(
            f"{listed(missing)} did not come within {timeout:g} s; {remedy}"
        ) from error
    return store


def _connect(timeout: float, **options: bool) -> dist.TCPStore:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(address, port, timeout=timedelta(seconds=timeout), **options)


def _watch(ranks: Ranks, timeout: float, attempt: str) -> None:
    """Start a thread that shares how far this rank is, and ends a rank that no longer gets on.

    When this rank makes no progress for `timeout` seconds, the thread says which rank the others
    wait for, and ends this one. Every message counts as a sign of life before it is waited for; so
    the rank that others wait for is the one with the fewest. A launcher that was killed leaves no
    rank behind: they stop as on SIGTERM.
    """
    # a connection for the thread alone
    store = dist.PrefixStore(f"watch/{attempt}", _connect(timeout))
    place, pause = f"{socket.gethostname()}, process {os.getpid()}", min(1.0, timeout / 8)
    launcher = os.getppid()
    store.set(str(ranks.rank), json.dumps([0, place]))

    def watch() -> None:
        seen, since = 0, time.monotonic()
        while not ranks._left.wait(pause):
            if os.getppid() != launcher:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            try:
                if ranks.ticks != seen:
                    seen, since = ranks.ticks, time.monotonic()
                    store.set(str(ranks.rank), json.dumps([seen, place]))
                if time.monotonic() - since <= timeout:
                    continue
                signs = [json.loads(store.get(str(rank))) for rank in range(ranks.world)]
                first = store.add("accused", 1) == 1
            except RuntimeError:  # the store's keeper has ended, or a rank never came
                continue
            if first:  # the rank that noticed first speaks for all
                problem = f"{_accusation(signs, timeout)}, in step {ranks.step + 1}; stopping all"
                remedy = "The same command with --resume goes on from the last checkpoint"
                if not any(ticks for ticks, _ in signs):  # they have never met
                    remedy = NETWORK[0].upper() + NETWORK[1:]
                print(f"alexnet: {problem} ranks. {remedy}", file=sys.stderr, flush=True)
            time.sleep(pause)  # let the rest read what they need
            os._exit(1)

    threading.Thread(target=watch, name="watch", daemon=True).start()


def _accusation(signs: list[tuple[int, str]], timeout: float) -> str:
    """Which rank stalls. signs: Of each rank its signs of life, and its place."""
    fewest = min(ticks for ticks, _ in signs)
    stalled = [f"{rank} ({at})" for rank, (ticks, at) in enumerate(signs) if ticks == fewest]
    others = [rank for rank, (ticks, _) in enumerate(signs) if ticks > fewest]
    message = f"{listed(stalled)} made no progress for {timeout:g} s"
    return f"{message}, while {listed(others)} waited" if others else message


def listed(ranks: Iterable[object]) -> str:
    """Ranks in words: "rank 0 and rank 2"."""
    return " and ".join(f"rank {rank}" for rank in ranks)
