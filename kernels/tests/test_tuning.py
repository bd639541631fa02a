"""What choices among configurations and forms depend on, and how they are timed."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from references import LAYOUTS, form, rand

import alexnet_kernels as kernels
from alexnet_kernels._choose import INTERPRETED

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="Triton's interpreter is off")


@pytest.fixture
def keys(monkeypatch):
    """What a device would tune for: the names and values of each launch's key."""
    from triton.runtime.autotuner import Autotuner

    keys, run = [], Autotuner.run

    def note(self, *args, **settings):
        given = dict(zip(self.arg_names, args)) | settings
        keys.append((self.base_fn.__module__, *(given[name] for name in self.keys)))
        return run(self, *args, **settings)

    monkeypatch.setattr(Autotuner, "run", note)
    return keys


FUNCTIONS = (kernels.local_response_norm, kernels.max_pool, kernels.same_map_norm)


def tuned_for(keys, *shape, layout="nhwc", dtype=torch.bfloat16):
    keys.clear()
    x = rand(*shape, dtype=dtype, layout=layout).requires_grad_()
    with form("interpreter"):
        for function in FUNCTIONS:
            function(x).sum().backward()
    return list(keys)


def test_a_choice_is_made_anew_for_another_number_of_images_and_another_layout(keys):
    """Which configuration is the fastest of 4 images is not that of 1,024; nor in planes."""
    one = tuned_for(keys, 1, 16, 5, 5)
    many = tuned_for(keys, 8, 16, 5, 5)
    planes = tuned_for(keys, 1, 16, 5, 5, layout="nchw")
    again = tuned_for(keys, 1, 16, 5, 5)
    assert len(one) == 7 and one == again
    assert not set(one) & set(many) and not set(one) & set(planes)
    floats = [tuned_for(keys, 1, 6, 5, 5, layout=each) for each in LAYOUTS]
    assert not set(floats[0]) & set(floats[1])  # also where a lane takes one channel in both


def test_times_are_the_devices(monkeypatch):
    """Kernels run inside a recorded graph, where the host's part of a launch is not counted; what
    compiles does so before, and other threads may go on."""
    from alexnet_kernels.gpu import timing

    log, took = [], iter([9.0, 5.0, 1.0, 2.0, 4.0, 3.0])

    def graph(which, **options):
        log.append(options)
        return nullcontext()

    event = SimpleNamespace(
        record=lambda: None, synchronize=lambda: None, elapsed_time=lambda end: 5 * next(took)
    )
    replay = SimpleNamespace(replay=lambda: log.append("replay"))
    for name, value in {
        "CUDAGraph": lambda: replay,
        "graph": graph,
        "Event": lambda enable_timing: event,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    assert timing.milliseconds(lambda: log.append("call")) == 3.0  # of 1 to 5; the 9 was the first
    assert log == ["call", {"capture_error_mode": "thread_local"}, *["call"] * 5, *["replay"] * 6]


def test_the_choice_of_a_form_uses_them(monkeypatch, tmp_path):
    with form("interpreter"):
        from alexnet_kernels.gpu import choice, maps, max_pool, timing

    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path))
    choice._known.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)

    def slow():
        return 2.0

    def fast():
        return 1.0

    monkeypatch.setattr(choice, "milliseconds", lambda call: call())
    assert choice.fastest(("test", 1), slow, fast) is fast
    monkeypatch.setattr(timing, "milliseconds", lambda call: call())
    assert maps.of_configuration(fast, (0.5, 0.2, 0.8)) == [1.0] * 3
    assert max_pool.forward_kernel.do_bench is maps.of_configuration
    choice._known.cache_clear()
