"""cuDNN's own response normalization, which torch never calls: through ctypes, as the peer that an
expert would have written.

cuDNN divides alpha by the window, as torch does. Its backward pass needs y as well as x and dy. It
knows no columns.
"""

import ctypes
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 9}  # cudnnDataType_t
NCHW, NHWC = 0, 1  # cudnnTensorFormat_t
ACROSS_MAPS = 0  # cudnnLRNMode_t

Norm = tuple[int, float, float, float]  # size, alpha, beta, k


@lru_cache
def library() -> ctypes.CDLL:
    """cuDNN, which torch has loaded already. Raises OSError where there is none."""
    lib = ctypes.CDLL("libcudnn.so.9")
    lib.cudnnGetErrorString.restype = ctypes.c_char_p
    return lib


def call(name: str, *args) -> None:
    status = getattr(library(), name)(*args)
    if status:
        raise RuntimeError(f"{name}: {library().cudnnGetErrorString(status).decode()}")


def new(name: str, setter: str = "", *values) -> ctypes.c_void_p:
    """A handle or descriptor. It is kept as long as the process: there are few, cached below."""
    made = ctypes.c_void_p()
    call(f"cudnnCreate{name}", ctypes.byref(made))
    if setter:
        call(setter, made, *values)
    return made


@lru_cache
def handle(device: int) -> ctypes.c_void_p:
    with torch.cuda.device(device):
        return new("")


@lru_cache
def tensor_descriptor(shape: tuple[int, ...], dtype: torch.dtype, form: int) -> ctypes.c_void_p:
    return new("TensorDescriptor", "cudnnSetTensor4dDescriptor", form, TYPES[dtype], *shape)


@lru_cache
def norm_descriptor(size: int, alpha: float, beta: float, k: float) -> ctypes.c_void_p:
    numbers = (ctypes.c_uint(size), *map(ctypes.c_double, (alpha, beta, k)))
    return new("LRNDescriptor", "cudnnSetLRNDescriptor", *numbers)


def _arguments(x: Tensor, norm: Norm):
    """Handle, normalization and mode; 1 and 0 (y = 1 norm(x) + 0 y); and a function that gives a
    tensor's arguments, in x's layout."""
    form = NCHW if x.is_contiguous() else NHWC
    scalar = ctypes.c_double if x.dtype == torch.float64 else ctypes.c_float
    cudnn = handle(x.device.index)
    call("cudnnSetStream", cudnn, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))

    def tensor(t: Tensor):
        memory = torch.contiguous_format if form == NCHW else torch.channels_last
        if not t.is_contiguous(memory_format=memory):
            raise ValueError("cuDNN is measured on tensors of one layout, without copies")
        return tensor_descriptor(tuple(t.shape), t.dtype, form), ctypes.c_void_p(t.data_ptr())

    head = (cudnn, norm_descriptor(*norm), ACROSS_MAPS)
    return head, ctypes.byref(scalar(1)), ctypes.byref(scalar(0)), tensor


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, norm: Norm) -> Tensor:
        y = torch.empty_like(x)
        head, one, zero, tensor = _arguments(x, norm)
        call("cudnnLRNCrossChannelForward", *head, one, *tensor(x), zero, *tensor(y))
        ctx.save_for_backward(x, y)
        ctx.norm = norm
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):
        x, y = ctx.saved_tensors
        dx = torch.empty_like(x)
        head, one, zero, tensor = _arguments(x, ctx.norm)
        inputs = (*tensor(y), *tensor(dy), *tensor(x))
        call("cudnnLRNCrossChannelBackward", *head, one, *inputs, zero, *tensor(dx))
        return dx, None


def local_response_norm(
    x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> Tensor:
    """cuDNN's form of `alexnet_kernels.local_response_norm`; differentiable.

    Args:
        x: (N, C, H, W) on a GPU, contiguous or channels_last.
        alpha: Per squared term.

    Raises:
        OSError: There is no libcudnn.so.9.
        RuntimeError: cuDNN refuses it (a type, say).
    """
    return _Normalize.apply(x, (size, alpha * size, beta, k))
