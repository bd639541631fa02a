"""The README: its examples run, and its table has every operator and layer."""

import re

from references import ROOT
from torch import nn

import alexnet_kernels as kernels

OTHERS = (
    "ModeError",
    "check_mode",
    "convert_alpha",
    "form_of",
    "mode",
    "using",
)  # public, and no operators
TEXT = (ROOT / "README.md").read_text()


def test_the_examples_run():
    names = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(block, names)
    assert names["y"].shape == names["x"].shape == names["x"].grad.shape
    assert names["net"](names["x"][:1, :3]).shape == (1, 96, 5, 5)


def test_the_table_has_every_operator_and_layer():
    rows = re.findall(r"^\| `(\w+)\(.*\| (?:`(\w+)` |)\| (.+) \|$", TEXT, re.MULTILINE)
    public = {name for name in kernels.__all__ if name not in OTHERS}
    assert {name for function, layer, _ in rows for name in (function, layer) if name} == public
    for function, layer, forms in rows:
        operator = kernels._operator.OPERATORS[function]
        kinds = {"triton": "Triton", "native": "C", "composite": "torch"}
        expected = {kinds[kind] for kind in operator.kinds()}
        if function == "response_norm_pool":
            expected |= {"C"}  # of its parts
        assert set(forms.split(", ")) == expected, function
        assert not layer or issubclass(getattr(kernels, layer), nn.Module)
