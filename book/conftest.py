"""nbval's kernels get the environment of all kernels that run the notebooks."""

from collections.abc import Generator
from pathlib import Path

import pytest

from alexnet.kernel_environment import kernel_environment


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if item.path.suffix != ".ipynb":
        return (yield)
    with kernel_environment(Path(__file__).parents[1]):  # a notebook's first cell starts its kernel
        return (yield)
