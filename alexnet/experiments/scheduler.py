"""One pool of processes for all jobs of all experiments: longest first, each once, resumable.

As many are under way as there are GPUs or, without any, cores, with one thread each. A job begins
as soon as those that it needs are done.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from alexnet import training
from alexnet.data.augment import Augment
from alexnet.data.pack import open_splits
from alexnet.experiments.jobs import Job, Run, Training, devices
from alexnet.processes import SHARED, as_they_end, follow_parent
from alexnet.profiles import Profile
from alexnet.tables import duration
from alexnet.training import Config
from alexnet.training.learner import Learner
from alexnet.training.precision import using_precision
from alexnet.training.ranks import Ranks

Task = Callable[[], object]

# of a worker
_device = "cpu"  # its own
_line: int | None = None  # of the terminal, its own
_steps: Any = None  # the count of all workers' steps, which the parent reads


class _Queue(Iterator[tuple[Task]]):
    """The tasks of a graph of jobs, the longest of those that can begin first.

    It is exhausted as long as every job left needs one that is under way.
    """

    def __init__(self, profile: Profile, jobs: Iterable[Job]):
        self.profile = profile
        self.jobs: dict[str, Job] = {}  # by key, those that others need included
        for job in jobs:
            self._add(job)
        self.runs: dict[str, Run] = {}  # finished, by the job's key
        self.begun: list[tuple[str, Path]] = []  # in their order: the job's key, its folder
        self.waiting = sorted(self.jobs, key=lambda key: self.jobs[key].work, reverse=True)
        self.update()

    def _add(self, job: Job) -> None:
        for needed in job.needs:
            self._add(needed)
        self.jobs.setdefault(job.key, job)

    def _ready(self, jobs: Iterable[str]) -> Iterator[tuple[str, Job, list[Run], Path]]:
        """Of these jobs those that need nothing unfinished: key, job, what it needs, folder."""
        for key in jobs:
            job = self.jobs[key]
            if all(other.key in self.runs for other in job.needs):
                needed = [self.runs[other.key] for other in job.needs]
                yield key, job, needed, job.folder(self.profile, needed)

    def update(self) -> None:
        """Find what is finished."""
        for key, _, _, folder in self._ready(key for key in self.jobs if key not in self.runs):
            if (folder / "summary.json").exists():
                self.runs[key] = Run(folder)
        self.waiting = [key for key in self.waiting if key not in self.runs]

    def __next__(self) -> tuple[Task]:
        under_way = {key: folder for key, folder in self.begun if key not in self.runs}
        kinds = Counter(type(self.jobs[key]) for key in under_way)
        for key, job, needed, folder in self._ready(self.waiting):
            if job.at_once and kinds[type(job)] >= job.at_once:
                continue
            if folder not in under_way.values():  # two jobs may turn out to be the same run
                self.waiting.remove(key)
                self.begun.append((key, folder))
                return (job.task(self.profile, needed),)
        raise StopIteration


def train(profile: Profile, jobs: Iterable[Job], title: str = "training") -> dict[str, Run]:
    """Do what is not done yet; on Ctrl-C or an error, every training run leaves a checkpoint.

    Args:
        profile: What they are for.
        jobs: Those that they need are done first.
        title: Of the progress bar.

    Returns:
        The finished runs by their jobs' keys.
    """
    queue = _Queue(profile, jobs)
    missing = [queue.jobs[key] for key in queue.waiting]
    for job in missing:
        job.check()
    if missing:
        workers = min(len(devices()), len(missing))
        counter, begin = _places(workers)
        steps, about = (
            sum(job.steps for job in missing),
            f"{len(missing)} of {len(queue.jobs)} models",
        )
        with tqdm(desc=f"{title}: {about}", total=steps, unit="step", disable=None) as bar:

            def show() -> None:
                bar.update(counter.value - bar.n)

            for _, future in as_they_end(_work, queue, workers, begin, show):
                future.result()
                queue.update()
    return queue.runs


def _places(workers: int) -> tuple[Any, Callable[[], None]]:
    """The count of steps, and what each worker does first: it takes a device and a line."""
    counter, places = SHARED.Value("q", 0), SHARED.SimpleQueue()
    for line, device in enumerate(devices()[:workers], 1):
        places.put((device, line))
    return counter, partial(_begin, counter, places, SHARED.RLock())


def _begin(counter: Any, places: Any, lock: Any) -> None:
    global _steps, _device, _line
    _steps, (_device, _line) = counter, places.get()
    tqdm.set_lock(lock)
    follow_parent()
    if _device == "cpu":
        torch.set_num_threads(1)
    else:
        torch.cuda.set_device(_device)  # also for kernels, which run on the current one


def _work(task: Task) -> None:
    task()


def line() -> int | None:
    """The line of the terminal that a worker's own progress bars may have."""
    return _line


def train_one(config: Config, data: Path, out: Path, start: Path | None) -> None:
    """Train, or go on, in a worker. A validation set that the config does not name is unused.

    Args:
        config: The run's settings.
        data: A pack, or a folder of packs.
        out: The run's folder.
        start: The folder of the run whose weights it begins with; None: initial weights.
    """
    packs = {name: pack for name, pack in open_splits(data).items() if name in config.data}
    more: dict[str, Any] = {"start": start, "resume": True, "progress": False, "on_steps": _count}
    training.train(config, packs, out, ranks=Ranks(_device), **more)


def _count(steps: int) -> None:
    if _steps is not None:
        with _steps.get_lock():
            _steps.value += steps


# --- how long it will take ----------------------------------------------------------------------


def forecast(profile: Profile, jobs: Iterable[Job]) -> str:
    """How long training all of these will take, in words.

    A few steps of the costliest of each kind of net are timed, and scaled by multiplications for
    its variants: between kinds, a multiplication's time differs by several times.

    Args:
        profile: What they are for.
        jobs: Finished ones are left out.
    """
    queue = _Queue(profile, jobs)
    nets = [job for job in queue.jobs.values() if isinstance(job, Training)]
    missing = [job for job in nets if job.key not in queue.runs]
    if not missing:
        return f"all {len(nets)} models are there already"
    kinds: dict[tuple, list[Training]] = {}
    for job in missing:
        family = job.config.preset.split("/")[0], job.config.width, job.config.image_size
        kinds.setdefault(family, []).append(job)
    costliest = [max(alike, key=lambda job: job.macs) for alike in kinds.values()]
    at_once = min(len(missing), len(devices()))  # all at work, as later: cores share memory
    tasks = [(job.config, job.data) for job in costliest for _ in range(at_once)]
    timed = as_they_end(_seconds_an_image, tasks, at_once, _places(at_once)[1])
    times = {number: future.result() for number, future in timed}
    seconds = 0.0
    for i, (job, alike) in enumerate(zip(costliest, kinds.values(), strict=True)):
        mean = statistics.mean(times[i * at_once + k] for k in range(at_once))
        seconds += mean / job.macs * sum(other.work for other in alike) / at_once
    images = sum(job.config.epochs * len(job.packs["train"]) for job in missing)
    where = f"{len(devices())} {'GPUs' if devices()[0] != 'cpu' else 'cores'}"
    others = f", {len(nets) - len(missing)} there already" if len(missing) < len(nets) else ""
    return (
        f"{len(missing)} model{'s' * (len(missing) > 1)} to train{others}: "
        f"{images / 1e6:,.2f} million images, about {duration(seconds)} on {where}"
    )


def _seconds_an_image(config: Config, data: Path) -> float:
    """Of training, augmentation included, in a worker."""
    pack, device = open_splits(data)["train"], torch.device(_device)
    count = min(config.batch_size, len(pack), 32 if _device == "cpu" else config.batch_size)
    ids, labels = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    images, times = torch.from_numpy(pack.gather(ids.numpy())).to(device), []
    augment = Augment(config.recipe, pack.mean, config.image_size, pack.color, config.seed)
    with using_precision(config.precision, device) as dtype:
        learner = Learner(config.network(), config.recipe, Ranks(_device), dtype)
        for _ in range(10):
            began = time.perf_counter()
            learner.backward(augment.train(images, ids, ids, 0), labels, ids, count)
            learner.update([0.0] * len(learner.parameters))
            times.append(time.perf_counter() - began)
    return statistics.median(times[4:]) / count  # the first ones also gather memory
