"""The Triton kernels, one module for each operator. Imported only when one of them runs, so that `kernels` works where Triton is absent.

Maps come in any memory layout: kernels read strides. Channels-last is the fast path, in which the channels of a pixel lie side by side and
a lane reads several of them at once. All arithmetic is in float32; half types are widened at the load and rounded at the store.
"""
