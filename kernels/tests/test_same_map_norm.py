"""Normalization within a map: what no other operator has of its own."""

import torch
from references import form, rand
from torch.utils._python_dispatch import TorchDispatchMode


class Recorder(TorchDispatchMode):
    """Notes the operations of torch that run inside."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name().removeprefix("aten::"))
        return function(*args, **(kwargs or {}))


def test_nothing_is_read_before_it_is_written(monkeypatch):
    """The gradient's two maps in between come from two kernels; no operation copies them, empty as
    they are."""
    x = rand(2, 8, 5, 5, dtype=torch.float32, layout="nhwc")
    with form("interpreter"):
        from alexnet_kernels.gpu import same_map_norm as gpu
    launched = []

    class Kernel:
        def __getitem__(self, grid):
            return lambda *args, **settings: launched.append(args[2:4])

    monkeypatch.setattr(gpu, "kernel", Kernel())
    with Recorder() as recorder:
        gpu.backward(x, x, torch.empty_like(x), 5, 4e-5, 0.75, 1.0)
    assert {name.partition(".")[0] for name in recorder.names} <= {"empty_like", "empty"}
    (direct, spread), again = launched
    assert again[0] is direct and again[1] is spread and direct.data_ptr() != spread.data_ptr()
