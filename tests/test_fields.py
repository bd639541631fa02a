"""Annotations that are checked."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import pytest

from alexnet.errors import InputError
from alexnet.fields import Checked, Count, Finite, NotNegative, Odd, Positive, Rule


@dataclass(frozen=True)
class Row(Checked):
    word: Literal["one", "two"] = "one"
    either: Literal["red"] | None = None
    many: tuple[Literal["a", "b"], ...] = ()
    few: Annotated[tuple[float, ...], Rule("two at most", lambda x: len(x) <= 2)] = ()
    count: Count = 1
    odd: Odd = 3
    rate: NotNegative = 0.0
    width: Positive | None = None
    bias: Finite = -1.0
    flag: bool = False
    name: str = ""


def test_what_annotations_allow_is_allowed():
    Row()
    Row("two", "red", ("a", "b", "a"), (1, 2.5), 7, 1, 3, 1, 0, True, "x")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("word", "three", "'one' or 'two'"),
        ("word", None, "'one' or 'two'"),
        ("either", "blue", "'red' or None"),
        ("many", ("a", "c"), "a tuple of 'a' or 'b'"),
        ("many", "ab", "a tuple"),
        ("few", (1, 2, 3), "two at most"),
        ("few", (1, "2"), "a tuple of a number"),
        ("count", 0, "1 or more"),
        ("count", 1.5, "a whole number"),
        ("count", True, "a whole number"),
        ("odd", 4, "odd, 1 or more"),
        ("rate", -0.1, "0 or more, and finite"),
        ("rate", float("nan"), "0 or more, and finite"),
        ("rate", "0.1", "a number"),
        ("width", 0.0, "above 0, and finite or None"),
        ("bias", float("inf"), "finite"),
        ("flag", 1, "True or False"),
        ("name", 3, "a text"),
    ],
)
def test_what_they_exclude_is_named_with_what_may_stand_there(field, value, expected):
    with pytest.raises(InputError) as refused:
        replace(Row(), **{field: value})
    assert str(refused.value) == f"Row's {field} is {value!r}; it must be {expected}"
