"""What every operator does around its forms: the device that a form runs on, failures of launches."""

from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from alexnet_kernels._operator import OPERATORS


@pytest.fixture
def form_of(monkeypatch):
    """Replace a form of max_pool's, so that none computes with tensors that hold nothing."""
    operator = OPERATORS["max_pool"]

    def replace(kind, function):
        _, fits = operator._forms[kind]
        monkeypatch.setitem(operator._forms, kind, (function, fits))
        return operator

    return replace


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])  # Triton's, composite
def test_kernels_are_launched_on_the_device_of_their_tensors(monkeypatch, form_of, index, dtype):
    """Triton launches on the current device, which may be another than that of the tensors."""
    current, seen = [0], []

    @contextmanager
    def device(which):
        before, current[0] = current[0], torch.device(which).index
        yield
        current[0] = before

    monkeypatch.setattr(torch.cuda, "device", device)
    for kind in ("triton", "composite"):
        operator = form_of(kind, lambda *given, kind=kind: seen.append((kind, current[0])))
    with FakeTensorMode():
        x = torch.empty(2, 4, 6, 6, dtype=dtype, device=f"cuda:{index}")
        y, code = torch.empty(2, 2, 4, 2, 2, dtype=dtype, device=x.device)
        operator.fill((y, code), x, 3, 2)
    assert seen == [("triton" if dtype == torch.bfloat16 else "composite", index)]
    assert current == [0]
