"""What all operators share, each against its definition (references.py), in every form.

Compiled C, plain torch, torch's own, Triton under its interpreter and, with `-m gpu`, on a device.
"""

from functools import partial
from inspect import signature

import pytest
import torch
from references import (
    DTYPES,
    FORMS,
    LAYOUTS,
    OWN_FORMS,
    REFERENCES,
    check,
    form,
    is_dense,
    rand,
    run,
    with_gradient,
)
from torch.library import opcheck

import alexnet_kernels as kernels
from alexnet_kernels._operator import OPERATORS, Operator

EACH = pytest.mark.parametrize("name", REFERENCES)


def functions(name):
    """The operator with the settings of each of its cases, and the shape of its input."""
    return [
        (partial(getattr(kernels, name), **settings), shape)
        for shape, settings in REFERENCES[name].cases
    ]


@EACH
@pytest.mark.parametrize("in_form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_gradients(name, in_form, layout, dtype):
    reference = REFERENCES[name]
    if dtype in reference.dtypes:
        for shape, settings in reference.cases:
            check(name, rand(*shape, dtype=dtype, layout=layout), in_form, **settings)


@EACH
def test_the_definition_has_the_operators_defaults(name):
    defaults = [
        [(p.name, p.default) for p in signature(function).parameters.values()]
        for function in (getattr(kernels, name), REFERENCES[name].definition)
    ]
    assert defaults[0] == defaults[1]


@EACH
@pytest.mark.parametrize("in_form", OWN_FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_lie_in_memory_as_what_they_come_from(name, in_form, layout):
    function, shape = functions(name)[0]
    with form(in_form) as device:
        x = rand(*shape, dtype=torch.float32, layout=layout)
        y, _, dx = with_gradient(function, x, device)
    assert is_dense(y, layout) and is_dense(dx, layout)


@EACH
@pytest.mark.parametrize("in_form", FORMS)
def test_no_images_are_no_trouble(name, in_form):
    for function, shape in functions(name):
        with form(in_form) as device:
            y, _, dx = with_gradient(function, rand(0, *shape[1:], dtype=torch.float32), device)
        assert y.shape[0] == 0 and dx.shape == (0, *shape[1:])


# --- as operators of torch ------------------------------------------------------------------------


def example_calls():
    """A call of each operator that is not from maps to maps."""
    images = torch.zeros(2, 6, 6, 3, dtype=torch.uint8)
    offsets, flips = torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, dtype=torch.bool)
    crop = images, offsets, flips, torch.zeros(2, 3), torch.zeros(6, 6, 3), 4
    w, g, v = ([torch.ones(3), torch.ones(2, 2)] for _ in range(3))
    kernels.crop_flip_color(*crop)
    kernels.crop_flip_color(*crop, channels_last=True, index=torch.tensor([1, 0]), block=2, side=6)
    kernels.momentum_step_(w, g, v, [0.1, 0.2], copies=[t.bfloat16() for t in w])
    kernels.keep_mask(torch.arange(6), 9, 0)


@pytest.fixture
def calls(monkeypatch):
    """The operators that were called since, and their arguments."""
    calls, call = [], Operator.__call__

    def record(operator, *args):
        leaves = [t.detach() if isinstance(t, torch.Tensor) else t for t in args]
        if not operator.name.endswith("_backward") and leaves[0] is not args[0]:
            leaves[0].requires_grad_(args[0].requires_grad)
        calls.append((getattr(torch.ops.alexnet_kernels, operator.name).default, tuple(leaves)))
        return call(operator, *args)

    monkeypatch.setattr(Operator, "__call__", record)
    return calls


def call(name, layout="nchw"):
    """Call an operator from maps to maps and its gradient, or, as "others", what else there is."""
    if name == "others":
        example_calls()
        x = rand(*functions("response_norm_pool")[0][1], dtype=torch.float32, layout=layout)
        bias = torch.ones(x.shape[1], requires_grad=True)
        kernels.response_norm_pool(x.requires_grad_(), bias, columns=2).sum().backward()
    else:
        function, shape = functions(name)[0]
        x = rand(*shape, dtype=torch.float32, layout=layout).requires_grad_()
        function(x).sum().backward()


@pytest.mark.parametrize("mode", ["auto", "composite"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [*REFERENCES, "others"])
def test_opcheck(name, mode, layout, calls):
    with kernels.using(mode):
        call(name, layout)
        for op, args in list(calls):
            opcheck(op, args)


def test_every_operator_is_checked(calls):
    for name in [*REFERENCES, "others"]:
        call(name)
    assert {op._schema.name.split("::")[1] for op, _ in calls} == set(OPERATORS)


@EACH
def test_opcheck_without_images(name, calls):
    function, shape = functions(name)[0]
    function(torch.zeros(0, *shape[1:], requires_grad=True)).sum().backward()
    for op, args in list(calls):
        opcheck(op, args, test_utils=("test_schema", "test_faketensor"))


@EACH
def test_gradcheck(name):
    for function, shape in functions(name):
        assert torch.autograd.gradcheck(function, rand(1, *shape[1:]).requires_grad_())


@EACH
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(name, backend):
    function, shape = functions(name)[0]
    x = rand(*shape, dtype=torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: function(2 * x) + 1, fullgraph=True, backend=backend)
    expected, result = with_gradient(lambda x: function(2 * x) + 1, x), with_gradient(compiled, x)
    assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


@EACH
def test_exports(name):
    function, shape = functions(name)[0]

    class Net(torch.nn.Module):
        def forward(self, x):
            return function(x)

    x = rand(*shape, dtype=torch.float32)
    exported = torch.export.export(Net(), (x,)).module()
    with kernels.using("torch"):  # an exported program must load where these operators are not
        assert torch.equal(exported(x), function(x))


@EACH
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # which torch uses itself
def test_transforms_go_by_torchs_operators(name):
    """torch.func and forward mode do not know our operators: a jvp would be zero without a word."""
    f, shape = functions(name)[0]
    x = rand(*shape).requires_grad_()
    y = f(x)
    (dx,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(torch.func.grad(lambda x: f(x).sum())(x.detach()), dx)
    torch.testing.assert_close(torch.func.vmap(f)(x.detach()[:, None]), y.detach()[:, None])
    _, tangent = torch.func.jvp(f, (x.detach(),), (torch.ones_like(x),))
    torch.testing.assert_close(tangent.sum(), dx.sum())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.detach(), torch.ones_like(x))
        other = torch.autograd.forward_ad.unpack_dual(f(dual)).tangent
    torch.testing.assert_close(other, tangent)


@EACH
def test_second_derivatives_are_refused_except_by_torchs_operators(name):
    function, shape = functions(name)[0]
    x = rand(*shape).requires_grad_()
    (dx,) = torch.autograd.grad((function(x) ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="_backward has no gradient; with kernels"):
        dx.sum().backward()
    with kernels.using("torch"):
        small = rand(1, *shape[1:]).requires_grad_()
        assert torch.autograd.gradgradcheck(function, small)


STEP = """
import sys, torch
import alexnet_kernels as kernels
x, bias = torch.randn(2, 8, 9, 9, requires_grad=True), torch.zeros(8, requires_grad=True)
kernels.max_pool(kernels.same_map_norm(kernels.local_response_norm(x))).sum().backward()
kernels.ResponseNormPool()(x, bias).sum().backward()
kernels.momentum_step_([x], [x.grad], [torch.zeros_like(x)], 0.1)
sys.exit("torch._dynamo" in sys.modules)
"""


def test_without_torch_compile_nobody_waits_for_its_import():
    done = run(STEP)
    assert done.returncode == 0, done.stderr


def test_a_gradient_that_is_not_as_the_result_is_refused():
    """Autograd gives none; who calls an operator's gradient himself may."""
    x, ops, norm = torch.ones(2, 8, 7, 7), torch.ops.alexnet_kernels, (5, 1e-4, 0.75, 2.0)
    _, code = ops.max_pool(x, 3, 2)
    calls = [
        (x, lambda dy: ops.local_response_norm_backward(x, None, dy, *norm, 1, "none")),
        (x, lambda dy: ops.same_map_norm_backward(x, dy, *norm)),
        (
            code.float(),
            lambda dy: ops.response_norm_pool_backward(x, None, code, dy, *norm, 1, "none", 3, 2),
        ),
        (code.float(), lambda dy: ops.max_pool_backward(dy, code, 7, 7, 3, 2)),
    ]
    for like, call in calls:
        call(torch.ones_like(like))
        with pytest.raises(ValueError, match=r"the gradient must be .*, as the result; it is"):
            call(torch.ones_like(like)[..., :-1])
    for like, call in calls[:3]:
        with pytest.raises(ValueError, match=r"must be torch\.float32 .* it is torch.bfloat16"):
            call(torch.ones_like(like).bfloat16())


COMPILED_STEP = """
import torch
import alexnet_kernels as kernels

def step(w, g, v, copy, rate):
    update = torch.ops.alexnet_kernels.momentum_step_
    w, v, copy = w.clone(), v.clone(), copy.clone()
    update([w], [g], [v], [copy], rate, rate, 0.9)
    update([w], [g * 2], [v], [copy], rate, rate, 0.9)
    return w * 2, v + 1, copy.float()

torch.manual_seed(0)
given = (*(torch.randn(5000) for _ in range(3)), torch.zeros(5000, dtype=torch.bfloat16))
given = (*given, torch.tensor([0.1]))
before = [t.clone() for t in given]
expected = step(*given)
for backend in ("aot_eager", "inductor"):
    torch._dynamo.reset()
    result = torch.compile(step, backend=backend, fullgraph=True)(*given)
    assert all(torch.equal(a, b) for a, b in zip(result, expected)), backend
    assert all(torch.equal(a, b) for a, b in zip(given, before)), backend
"""


def test_the_update_of_clones_inside_torch_compile():
    """Some versions of torch have let operators that write to their arguments write to the wrong
    tensors, where the compiler had taken clones for needless."""
    done = run(COMPILED_STEP)
    assert done.returncode == 0, done.stderr[-2000:]


# --- numbers at the edge --------------------------------------------------------------------------


@pytest.mark.parametrize("in_form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, the interpreter's, on overflow
def test_what_is_not_finite_goes_no_further_than_its_windows(in_form, layout, value):
    x = rand(2, 12, 9, 7, dtype=torch.float32, layout=layout)
    x[0, 2, 4, 6] = x[1, 11, 0, 0] = value  # at the ends of a row, a map, a column of maps
    check("local_response_norm", x, in_form, size=3, alpha=1e-3, columns=2)
    check("same_map_norm", x, in_form, size=3, alpha=1e-3)


@EACH
def test_the_bits_do_not_depend_on_threads(name, one_thread):
    function, _ = functions(name)[0]
    x, results = rand(5, 64, 31, 29, dtype=torch.float32), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        with form("native"):
            results.append(with_gradient(function, x))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
