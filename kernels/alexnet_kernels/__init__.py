"""Operators of AlexNet and its training, each in a module of its own name.

They work on any device that torch does, in any memory layout (the result keeps the input's format),
under autograd, `torch.compile` and CUDA-graph capture, and raise ValueError on arguments that make
no sense. `alpha` is always per squared term, as in the paper's equation: torch's
`LocalResponseNorm(alpha)`, Caffe's and cuDNN's divide it by the size of the window
(`convert_alpha`). Second derivatives are refused; with `using("torch")` they work. Forward mode,
torch.func's transforms, torch.export and its kin go that way by themselves.

Each is a `torch.library` operator (`torch.ops.alexnet_kernels.*`) in up to three forms: Triton
kernels (gpu/), C for the CPU (native.c), and plain torch for the rest; `using` chooses another
than the fastest. The layers (modules.py) are the same as `torch.nn.Module`s.
"""

from alexnet_kernels._choose import ModeError, check_mode, form_of, mode, using
from alexnet_kernels.crop_flip_color import crop_flip_color
from alexnet_kernels.keep_mask import keep_mask
from alexnet_kernels.local_response_norm import convert_alpha, local_response_norm
from alexnet_kernels.max_pool import max_pool
from alexnet_kernels.modules import LocalResponseNorm, MaxPool2d, ResponseNormPool, SameMapNorm
from alexnet_kernels.momentum_step import momentum_step_
from alexnet_kernels.response_norm_pool import response_norm_pool
from alexnet_kernels.same_map_norm import same_map_norm

__all__ = [
    "LocalResponseNorm",
    "MaxPool2d",
    "ModeError",
    "ResponseNormPool",
    "SameMapNorm",
    "check_mode",
    "convert_alpha",
    "crop_flip_color",
    "form_of",
    "keep_mask",
    "local_response_norm",
    "max_pool",
    "mode",
    "momentum_step_",
    "response_norm_pool",
    "same_map_norm",
    "using",
]
