"""Kernels that nbval starts run in the same environment as those of the book."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from alexnet.kernel_environment import kernel_environment


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """A notebook's first cell starts its kernel."""
    with kernel_environment(Path(__file__).resolve().parents[1]):
        return (yield)
