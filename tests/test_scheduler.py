"""One pool for all jobs: what is forecast, the order in which jobs begin, and that stopping keeps
what was done."""

import os
import re
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from alexnet import experiments, training
from alexnet.data.pack import open_splits
from alexnet.errors import InputError
from alexnet.experiments import figure1, jobs, scheduler
from alexnet.experiments.jobs import Job, Run, Training
from alexnet.training import checkpoint, log
from tests.experiments import TINY, own

pytestmark = pytest.mark.usefixtures("one_thread", "runs")


def test_what_is_to_be_trained_is_forecast_and_trained_in_one_go(packs72, serial, capsys):
    arms = {"sample": 20, "arms": ["full", "no-lrn"]}
    profile = own(packs72, ablations=arms, figure3={"shuffles": 9}, devices={}, epochs=1, **TINY)
    experiments.train_ahead(["figure3", "ablations", "devices"], profile, [0])
    assert re.fullmatch(
        r"2 models to train: 0\.00 million images, about \d+ seconds? on \d+ cores\n",
        capsys.readouterr().out,
    )
    experiments.train_ahead(["figure3", "ablations"], profile, [0])
    assert capsys.readouterr().out == "all 2 models are there already\n"
    experiments.train_ahead(["figure3"], profile, [0, 1])
    assert capsys.readouterr().out.startswith("1 model to train, 1 there already: ")


def test_jobs_that_need_others_are_trained_with_them(packs32, serial, capsys):
    rates = {"ReLU": [0.001, 0.01], "tanh": [0.01]}
    given = {"rates": rates, "sweep_epochs": 1, "epochs": 2, "threshold": 0.3}
    profile = own(packs32, figure1=given)
    experiments.train_ahead(["figure1"], profile, [0, 1])
    # of the sweep; of two kinds and two seeds
    assert capsys.readouterr().out.startswith("7 models to train: ")
    assert len(list(profile.runs.glob("models/*/summary.json"))) == 3 + 4
    done = scheduler.train(profile, [j for e in figure1.entries(profile, [0, 1]) for j in e.jobs])
    best = {job.key: done[job.key].config for e in figure1.entries(profile, [1]) for job in e.jobs}
    assert {config.rate for config in best.values() if config.seed == 1} <= {0.001, 0.01}


@dataclass(frozen=True, eq=False)
class Noted(Job):
    """Writes down that it was done."""

    name: str
    work: float
    needs: tuple = ()
    at_once: int = 0
    same_as: str = ""
    key = property(lambda self: self.name)

    def folder(self, profile, needed=()):
        return profile.runs / "noted" / (self.same_as or self.name)

    def task(self, profile, needed=()):
        assert [run.folder.name for run in needed] == [need.name for need in self.needs]
        folder = self.folder(profile)

        def work():
            folder.mkdir(parents=True)
            (folder / "summary.json").write_text("{}")
            with (profile.runs / "order").open("a") as file:
                file.write(f"{self.name}\n")

        return work


def test_the_longest_begins_first_each_once_and_after_those_that_it_needs(packs32, serial):
    profile = own(packs32)
    a, b = Noted("a", 1), Noted("b", 2)
    needs_a = Noted("needs a", 9, (a,))
    twice = [Noted("b", 2), Noted("as needs a", 1, same_as="needs a")]
    runs = scheduler.train(profile, [needs_a, b, *twice, Noted("c", 3)])
    assert (profile.runs / "order").read_text().split("\n")[:-1] == ["c", "b", "a", "needs a"]
    assert runs.keys() == {"a", "b", "c", "needs a", "as needs a"}
    assert runs["as needs a"] == runs["needs a"]


def test_of_some_kinds_only_so_many_are_under_way(packs32):
    profile = own(packs32)
    queue = scheduler._Queue(profile, [Noted(name, 1, at_once=2) for name in "abc"])
    assert [next(queue) and key for key in "ab"] == ["a", "b"]
    with pytest.raises(StopIteration):
        next(queue)
    task = Noted("a", 1).task(profile)
    task()
    queue.update()
    assert next(queue) and queue.begun[-1][0] == "c"


def test_models_are_trained_in_workers_stopped_resumed_and_left_alone_when_there(
    packs32, tmp_path, monkeypatch, capfd
):
    profile = own(packs32, batch_size=1)
    packs = jobs.train_only(profile.splits())
    fields = {"packs": packs, "epochs": 8.0, "width": 0.25, "image_size": 32, "rate": 1e-4}
    configs = [jobs.configure(profile, "four-layer", seed=seed, **fields) for seed in (0, 1)]
    configs.append(replace(configs[0], epochs=1 / 40))
    wanted = [Training(config, packs) for config in configs]
    folders = [job.folder(profile) for job in wanted]

    def interrupt():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not any(
            checkpoint.steps(folder / "checkpoints") for folder in folders
        ):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = threading.Thread(target=interrupt)
    before.start()
    monkeypatch.setattr(jobs, "cores", lambda: 2)
    with pytest.raises(KeyboardInterrupt):
        scheduler.train(profile, wanted)
    before.join()
    begun = [folder for folder in folders if (folder / "config.json").exists()]
    assert begun and not any((folder / "summary.json").exists() for folder in folders)
    steps = {}
    for folder in begun:  # all that was done is kept
        last = checkpoint.steps(folder / "checkpoints")[-1:]
        steps[folder] = checkpoint.load(last[0])[1]["step"] if last else 0
        if (folder / "log.jsonl").exists():
            assert len(list(log.read(folder, "step"))) == steps[folder]
    assert max(steps.values()) > 0

    monkeypatch.setattr(jobs, "cores", lambda: 1)
    done = scheduler.train(profile, wanted)
    assert [done[job.key].folder for job in wanted] == folders
    for config, job in zip(configs, wanted, strict=True):
        run = done[job.key]
        assert run.config == config and run.summary["seconds"] >= 0
        assert run.summary["steps"] == (1 if config.epochs < 1 else 320)
        # the config names no validation set
        assert not any("val_top1" in row for row in log.read(run.folder, "epoch"))
    training.train(configs[1], packs, tmp_path / "here", progress=False)
    weights = [folder / "weights.safetensors" for folder in (tmp_path / "here", folders[1])]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    capfd.readouterr()
    assert scheduler.train(profile, wanted[::-1]) == done
    assert capfd.readouterr() == ("", "")


def test_a_config_takes_what_the_profile_says_unless_told_otherwise(packs72):
    profile = own(packs72, image_size=64, width=0.25, batch_size=16)
    config = jobs.configure(profile, "paper", epochs=2.0, seed=3)
    sizes = config.image_size, config.width, config.batch_size, config.num_classes, config.seed
    assert sizes == (64, 0.25, 16, 3, 3)
    digests = {name: pack.digest for name, pack in open_splits(packs72).items() if name != "test"}
    assert config.data == digests
    assert jobs.configure(profile, "paper", epochs=2.0, width=0.5).width == 0.5
    assert jobs.configure(own(packs72, image_size=64), "paper", epochs=2.0).width == 1.0
    job = Training(config, profile.splits())
    assert job.folder(profile) == profile.runs / "models" / config.identity
    assert job.key == config.identity and isinstance(job.data, Path)


@pytest.mark.parametrize("content", ["", "[]", "7", '{"config": {"preset": 1}}', "{}"])
def test_a_damaged_summary_of_a_job_is_named_with_its_remedy(tmp_path, content):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(InputError, match=r"summary.json is damaged; remove .*makes it anew"):
        _ = Run(tmp_path).config
