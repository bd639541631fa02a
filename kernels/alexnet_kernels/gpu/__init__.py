"""The Triton kernels, one module for each operator.

They are imported only when one of them runs, so that the package works where Triton is absent.

Maps come in any memory layout: kernels read strides. Channels-last is the fast path, in which the
channels of a pixel lie side by side and a lane reads several of them at once. All arithmetic is in
float32; half types are widened at the load and rounded at the store.
"""
