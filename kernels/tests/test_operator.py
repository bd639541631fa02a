"""What an operator does around its forms: the device that one runs on, launches that fail."""

from contextlib import contextmanager, nullcontext
from subprocess import CalledProcessError

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import alexnet_kernels as kernels
from alexnet_kernels import _choose
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


FAULTS = {  # of machines, as Triton reports them: what helps
    "no compiler": (
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
        "name a compiler in CC",
    ),
    "no headers": (CalledProcessError(1, ["gcc"]), "install gcc and Python's headers"),
    "cache": (PermissionError(13, "Permission denied", "/.triton"), "TRITON_CACHE_DIR"),
    "no driver": (RuntimeError("0 active drivers ([]). There should only be one."), "nvidia-smi"),
    "no library": (AssertionError("libcuda.so cannot found!"), "nvidia-smi"),
    "mounted noexec": (ImportError("failed to map segment"), "install gcc"),
}


@pytest.fixture
def failing(monkeypatch, form_of):
    """Let max_pool's Triton form fail; its composite and the form itself note that they ran."""
    monkeypatch.setattr(_choose, "_cannot_launch", False)

    def start(error):
        ran = []

        def fail(*given):
            ran.append("triton")
            raise error

        form_of("composite", lambda *given: ran.append("composite"))
        operator = form_of("triton", fail)

        def call():
            with FakeTensorMode():
                x = torch.empty(2, 4, 6, 6, device="cuda:0")
                operator.fill(tuple(torch.empty(2, 2, 4, 2, 2, device="cuda:0")), x, 3, 2)

        monkeypatch.setattr(torch.cuda, "device", lambda which: nullcontext())
        return call, ran

    return start


@pytest.mark.parametrize("kind", FAULTS)
def test_what_a_machine_lacks_is_one_warning_and_the_composite(failing, kind):
    error, remedy = FAULTS[kind]
    call, ran = failing(error)
    with pytest.warns(UserWarning, match=remedy) as caught:
        call()
        call()
    assert len(caught) == 1 and ran == ["triton", "composite", "composite"]


@pytest.mark.parametrize("kind", FAULTS)
def test_who_asks_for_triton_is_told_why_it_fails(failing, kind):
    call, ran = failing(FAULTS[kind][0])
    with kernels.using("triton"), pytest.raises(type(FAULTS[kind][0])):
        call()
    assert ran == ["triton"]


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: an illegal memory access"), torch.OutOfMemoryError("much")]
)
def test_a_fault_of_the_kernel_is_no_fault_of_the_machine(failing, error):
    call, ran = failing(error)
    with pytest.raises(type(error)):
        call()
    assert ran == ["triton"]


WINDOWS = {  # of each operator, forward and backward: the largest that Triton compiles in seconds
    "local_response_norm": (15, lambda f, x, n: f(x, n)),
    "same_map_norm": (5, lambda f, x, n: f(x, n)),
    "max_pool": (5, lambda f, x, n: f(x, n, 2)),
}


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("beyond", [0, 2])
def test_windows_that_would_compile_for_minutes_are_the_composites(monkeypatch, name, beyond):
    if not _choose.INTERPRETED:
        pytest.skip("Triton's interpreter is off")
    largest, call = WINDOWS[name]
    ran = []
    for each in (name, f"{name}_backward"):
        for kind in ("triton", "composite"):
            function, fits = OPERATORS[each]._forms[kind]

            def note(*given, function=function, kind=kind):
                ran.append(kind)
                return function(*given)

            monkeypatch.setitem(OPERATORS[each]._forms, kind, (note, fits))
    x = torch.ones(1, 2, 9, 9, requires_grad=True)
    with kernels.using("triton"):
        call(getattr(kernels, name), x, largest + beyond).sum().backward()
    assert ran == ["composite" if beyond else "triton"] * 2
