"""Any shape, any layout, any settings: examples by hypothesis."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from references import DTYPES, LAYOUTS, RELU, check, rand


@st.composite
def cases(draw, side=6, sizes=(1, 3, 5, 7, 9)):
    columns = draw(st.integers(1, 4))
    maps = columns * draw(st.integers(1, 9))
    shape = draw(st.integers(1, 3)), maps, draw(st.integers(1, side)), draw(st.integers(1, side))
    memory = ["nchw", "nhwc", "sliced", "transposed", "every other map"]
    return {
        "shape": shape,
        "columns": columns,
        "size": draw(st.sampled_from(sizes)),
        "relu": draw(st.sampled_from(RELU)),
        "dtype": draw(st.sampled_from(DTYPES)),
        "memory": draw(st.sampled_from(memory)),
        "seed": draw(st.integers(0, 2**20)),
        "scale": draw(st.sampled_from([1e-3, 1.0, 100.0])),
        "pool": (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
    }


def in_memory(x, how):
    """The same values, lying differently."""
    n, c, h, w = x.shape
    if how == "sliced":  # neighbors of other values on every side
        big = torch.full((n + 1, c + 2, h + 2, w + 3), torch.nan, dtype=x.dtype)
        big[:n, 1 : c + 1, 1 : h + 1, 2 : w + 2] = x
        return big[:n, 1 : c + 1, 1 : h + 1, 2 : w + 2]
    if how == "transposed":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    if how == "every other map":
        return x.repeat_interleave(2, 1)[:, ::2]
    return x.contiguous(memory_format=LAYOUTS[how])


def check_case(case, in_form):
    x = rand(*case["shape"], scale=case["scale"], dtype=case["dtype"], seed=case["seed"])
    x = in_memory(x, case["memory"])
    norm = {"size": case["size"], "alpha": 1e-2, "k": 1.0}
    columns = {"columns": case["columns"], "relu": case["relu"]}
    check("local_response_norm", x, in_form, **norm, **columns)
    check("same_map_norm", x, in_form, **norm)
    size, stride = case["pool"]
    if min(x.shape[2:]) >= size:
        check("max_pool", x, in_form, size=size, stride=stride)


QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "derandomize": True}


@settings(max_examples=60, **QUIET)
@given(cases())
def test_any_shape_and_layout_on_the_cpu(case):
    check_case(case, "native")
    check_case(case, "composite")


@settings(max_examples=25, **QUIET)
@given(cases(side=4, sizes=(1, 3, 5)))
def test_any_shape_and_layout_under_the_interpreter(case):
    check_case(case, "interpreter")


@pytest.mark.slow
@settings(max_examples=1000, **QUIET)
@given(cases())
def test_many_shapes_on_the_cpu(case):
    check_case(case, "native")
    check_case(case, "composite")


@pytest.mark.slow
@settings(max_examples=400, **QUIET)
@given(cases(side=5))
def test_many_shapes_under_the_interpreter(case):
    check_case(case, "interpreter")


@pytest.mark.gpu
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases(side=9))
def test_any_shape_and_layout_on_a_device(case):
    check_case(case, "cuda")
