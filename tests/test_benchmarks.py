"""What the benchmarks of steps, trainings and data have in common."""

import pytest

from alexnet import AlexNet
from benchmarks import data, reach, step
from kernel_benchmarks import momentum_step


@pytest.mark.parametrize(
    "out", ["/proc/rows.csv", "/dev/null", ".", f"{__file__}/rows.csv", "/bin/sh"]
)
@pytest.mark.parametrize(
    ("main", "words", "worker"),
    [
        (step.main, ["--tiny"], (step, "compare")),
        (reach.main, [], (reach, "train")),
        (data.main, [], (data, "photographs")),
    ],
    ids=["step", "reach", "data"],
)
def test_where_nothing_can_be_written_nothing_is_measured(
    main, words, worker, out, capsys, monkeypatch
):
    monkeypatch.setattr(*worker, lambda *rest, **options: pytest.fail("began"))
    assert main(["--out", out, "--device", "cpu", *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {out}") and "--out" in line


def test_the_update_is_timed_over_alexnets_parameters():
    net = AlexNet("paper", width=1 / 16)
    assert momentum_step.shapes((16,)) == [p.shape for p in net.parameters()]
