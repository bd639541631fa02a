"""The net on more than one device: what is counted in messages is what the table of layers says."""

import json
import os
import re
import signal
import subprocess
import time

import matplotlib.pyplot as plt
import pytest

from alexnet import experiments, results
from alexnet.experiments import devices
from alexnet.presets import get, shapes, total
from tests.survival import packs


def sent(found, batch):
    images = batch / found["ranks"][0]
    return {
        way: images * sum(n for name, n in found["sent_per_image"].items() if name.endswith(way))
        for way in ("forward", "backward")
    } | {"gradients": found["gradients_per_step"]}


@pytest.mark.parametrize("name", devices.LAYOUTS)
def test_the_archive_counted_what_is_reckoned(name):
    archived = experiments.archived("devices", "embedded")
    assert archived is not None
    layout, batch = devices.LAYOUTS[name], archived["metrics"]["batch_size"]
    wanted = devices.expected_traffic(layout.rows, layout.columns, batch, layout.preset)
    assert sent(archived["metrics"]["layouts"][name], batch) == {
        way: wanted[way] for way in ("forward", "backward", "gradients")
    }


@pytest.mark.parametrize(
    "layout",
    [
        devices.Layout(1, 2),
        *(
            pytest.param(layout, marks=pytest.mark.slow)
            for layout in (devices.Layout(2, 2), devices.Layout(4, 1))
        ),
    ],
    ids=lambda layout: f"{layout.rows} x {layout.columns}",
)
def test_a_narrow_net_sends_what_is_reckoned(tmp_path, layout):
    sizes = {"width": 1 / 8, "image_size": 64}
    found = devices.launch(
        layout, packs(tmp_path) / "train", batch_size=8, steps=2, classes=10, **sizes
    )
    wanted = devices.expected_traffic(layout.rows, layout.columns, 8, num_classes=10, **sizes)
    assert sent(found, 8) == {way: wanted[way] for way in ("forward", "backward", "gradients")}
    assert len(found["step_times"]) == len(found["exchange_times"]) == 2
    assert all(
        (a > 0) == (layout.columns > 1) and a < b
        for a, b in zip(found["exchange_times"], found["step_times"])
    )


def test_what_is_reckoned_of_the_full_net():
    two = devices.expected_traffic(1, 2, 1)
    assert (two["forward"], two["backward"], two["gradients"]) == (29_288, 28_288, 0)
    table = shapes(get("paper"))
    assert (
        devices.expected_traffic(4, 1, 128)["gradients"] == total(table, "parameters") == 60_965_224
    )
    assert (
        devices.expected_traffic(2, 2, 128)["gradients"] == 30_483_112
    )  # column 0's half, with fc8's bias
    assert (
        devices.expected_traffic(1, 2, 128)["macs"] * 2
        == devices.expected_traffic(1, 1, 128)["macs"]
        == 3 * 128 * 724_406_816
    )
    assert devices.copies(1, 128) == devices.hybrid(1, 128) == 0
    assert devices.copies(2, 128) == 60_965_224
    assert (
        devices.work(2, 128)
        == devices.expected_traffic(1, 2, 128)["macs"]
        == devices.expected_traffic(2, 1, 128)["macs"]
    )
    assert devices.work(64, 64 * 128) == devices.work(1, 128)
    convs = 2_334_080
    assert devices.hybrid(2, 128) == convs + 2 * (9_216 + 4_096 + 4_096) * 64


def test_the_figure_is_drawn():
    figure = devices.plot_traffic()
    assert [axes.get_title() for axes in figure.axes] == [
        "128 images in all",
        "128 images a rank",
        "",
        "",
    ]
    for sent, done in zip(figure.axes[:2], figure.axes[2:]):
        for above, below, traffic in zip(sent.lines, done.lines, (devices.copies, devices.hybrid)):
            n = int(above.get_xdata()[-1])
            batch = 128 * n if sent.get_title().endswith("a rank") else 128
            assert above.get_ydata()[-1] == pytest.approx(4e-6 * traffic(n, batch))
            assert below.get_ydata()[-1] == pytest.approx(
                devices.work(n, batch) / traffic(n, batch)
            )
    plt.close(figure)


# --- the page's script for SLURM ------------------------------------------------------------------

SRUN = """#!/bin/bash
# what srun does with a signal: it hands it on
trap 'sleep 0.5; echo "a checkpoint, then 143" >> {folder}/said; exit 143' TERM
echo "$@" >> {folder}/said
{rest}
"""
SCONTROL = """#!/bin/bash
[ "$1" = show ] && printf 'n1\\nn2\\n' || echo "scontrol $*" >> {folder}/said
"""


@pytest.mark.parametrize("when", ["the time is up", "it ends by itself"])
def test_the_job_script_goes_back_into_the_queue_when_its_time_is_up_and_only_then(tmp_path, when):
    cells = json.loads((results.ROOT / "book" / "more-devices.ipynb").read_text())["cells"]
    (script,) = re.findall(
        r"```bash\n(#!/bin/bash\n.*?)```", "".join("".join(cell["source"]) for cell in cells), re.S
    )
    assert "--requeue" in script and "--signal=B:USR1@300" in script
    rest = "while true; do sleep 0.05; done" if when == "the time is up" else "exit 0"
    for name, text in (
        ("srun", SRUN.format(folder=tmp_path, rest=rest)),
        ("scontrol", SCONTROL.format(folder=tmp_path)),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "job.sh").write_text(script)
    place = {
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_NNODES": "2",
        "SLURM_JOB_ID": "7",
        "DATA": "/d",
        "SHARED": "/s",
    }
    environment = os.environ | place | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    job = subprocess.Popen(["bash", tmp_path / "job.sh"], env=environment)
    said = tmp_path / "said"
    for _ in range(600):
        if said.exists():
            break
        time.sleep(0.05)
    if when == "the time is up":
        time.sleep(0.2)  # the shell has its trap
        job.send_signal(signal.SIGUSR1)
    assert (job.wait(30) == 0) == (when == "it ends by itself")
    started, *after = said.read_text().splitlines()
    assert (
        "--nnodes 2" in started
        and "--rdzv-endpoint n1:29500" in started
        and "--rdzv-id 7" in started
        and "--resume" in started
    )
    assert after == (
        ["a checkpoint, then 143", "scontrol requeue 7"] if when == "the time is up" else []
    )
