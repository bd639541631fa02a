"""Times of the operators beside their peers', and the runner that every benchmark of this
repository uses: one script per operator, named as its module in `alexnet_kernels`.

It runs in a checkout and is not installed: `python -m kernel_benchmarks.operators` in `kernels/`.
README.md says how times are taken and read.
"""
