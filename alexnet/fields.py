"""Fields of tables that say what they may hold: words by `Literal`, numbers by a `Rule`."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, partial
from math import inf
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from alexnet.errors import require


@dataclass(frozen=True)
class Rule:
    """What a value must be: in words, and as a test."""

    words: str
    test: Callable[[Any], bool]


Count = Annotated[int, Rule("1 or more", lambda n: n >= 1)]
Odd = Annotated[int, Rule("odd, 1 or more", lambda n: n >= 1 and n % 2 == 1)]
Natural = Annotated[int, Rule("0 or more", lambda n: n >= 0)]
NotNegative = Annotated[float, Rule("0 or more, and finite", lambda x: 0 <= x < inf)]
Positive = Annotated[float, Rule("above 0, and finite", lambda x: 0 < x < inf)]
Finite = Annotated[float, Rule("finite", lambda x: -inf < x < inf)]

_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "True or False",
}
_NAMES |= {NoneType: "None", Callable[..., Any]: "a function"}


_hints = cache(partial(get_type_hints, include_extras=True))


class Checked:
    """A dataclass whose fields hold what their annotations allow.

    Raises:
        InputError: A field does not; the message names it and lists what it may hold.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for field in fields(kind):
            value = getattr(self, field.name)
            expected = _expected(value, _hints(kind)[field.name])
            stated = f"{kind.__name__}'s {field.name} is {value!r}"
            require(not expected, f"{stated}; it must be {expected}")


def _expected(value: Any, hint: Any) -> str:
    """What a value should be, in words; empty where it is."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "" if value in args else " or ".join(map(repr, args))
    if origin is Annotated:
        broken = (rule.words for rule in args[1:] if not rule.test(value))
        return _expected(value, args[0]) or next(broken, "")
    if origin in (Union, UnionType):
        all_expected = [_expected(value, member) for member in args]
        return "" if "" in all_expected else " or ".join(all_expected)
    if origin is tuple:
        if not isinstance(value, tuple):
            return "a tuple"
        return next((f"a tuple of {words}" for x in value if (words := _expected(x, args[0]))), "")
    kinds = (int, float) if hint is float else origin or hint
    fits = isinstance(value, kinds) and (hint is bool or not isinstance(value, bool))
    return "" if fits else _NAMES.get(hint, hint.__name__)
