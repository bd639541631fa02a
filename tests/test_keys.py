"""Keys: stable, and told apart by all that counts."""

import subprocess
import sys
from pathlib import Path

import pytest

from alexnet import keys
from alexnet.keys import key


def test_a_key_is_the_same_in_every_process_and_whatever_the_order():
    value = {"b": [1, 2.5, None], "a": {"y": "ü", "x": True}}
    code = f"from alexnet.keys import key; print(key({value!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == key(value) == key(dict(reversed(value.items())))
    assert key({"seed": 0}) == "de7d7744ccd7722e"


@pytest.mark.parametrize(
    "other", [{"a": 1, "b": "3"}, {"a": 1, "b": 3.5}, {"a": 1}, [["a", 1], ["b", 3]], None]
)
def test_whatever_differs_has_another_key(other):
    assert key(other) != key({"a": 1, "b": 3})
    assert len(key(other)) == 16 and set(key(other)) <= set("0123456789abcdef")


def test_what_json_lacks_counts_by_its_text():
    assert key({"at": Path("/x")}) == key({"at": "/x"}) != key({"at": Path("/y")})


def test_the_page_of_what_is_kept_names_each_kind():
    for kept in ("models/", "checkpoints/", "results/", "baselines/", "notebooks/", "native-"):
        assert kept in keys.__doc__
