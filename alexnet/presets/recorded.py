"""Whether a name still stands for the table that it stood for when models were first kept by it.

A run's key holds its preset's name, as runs and archives have it. `recorded.yml` holds the digests
of the tables then: of every net, and of every variant of it alone. Where one has changed, or is
new, `unrecorded` gives the digest of the whole table, which then is part of the key: no model is
taken for one of another table, and none is trained anew because another's table has changed.

A line of the file is removed where a table changes for good, and never edited. The whole file is
made anew with the training code's VERSION: `python -m alexnet.presets.recorded`.
"""

from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from alexnet import presets
from alexnet.errors import InputError
from alexnet.files import write_whole
from alexnet.keys import key

FILE = Path(__file__).with_name("recorded.yml")
# Fields of tables that are younger than the file, as ("Layer", "name"): they count where they are
# not as their defaults, so that older digests stay.
YOUNGER: frozenset[tuple[str, str]] = frozenset()


def digest(preset: presets.Preset) -> str:
    """The digest of a net's table and recipe, whatever their name."""
    return key(_plain(replace(preset, name="a preset")))


def _plain(value: Any) -> Any:
    """A table as JSON holds it."""
    if is_dataclass(value):
        kind = type(value).__name__
        kept = {
            field.name: _plain(getattr(value, field.name))
            for field in fields(value)
            if (kind, field.name) not in YOUNGER or getattr(value, field.name) != field.default
        }
        return [kind, kept]
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return presets.operations.activation_name(value) if callable(value) else value


@cache
def recorded() -> dict[str, str]:
    """The digests of `recorded.yml` by names such as "paper" and "paper/no-lrn"."""
    by_net = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {
        f"{net}/{variant}" if variant else net: digest
        for net, variants in by_net.items()
        for variant, digest in variants.items()
    }


def unrecorded(name: str) -> str | None:
    """The digest of the table that a preset's name stands for, where it is not the recorded one.

    Raises:
        InputError: There is no such preset.
    """
    net, *variants = name.split("/")
    parts = [net, *(f"{net}/{variant}" for variant in variants)]
    if all(recorded().get(part) == digest(presets.get(part)) for part in parts):
        return None
    return digest(presets.get(name))


def record() -> None:
    """Write `recorded.yml` anew."""
    lines = []
    for net in presets.PRESETS:
        lines.append(f"{net}:\n")
        for variant in ("", *presets.VARIANTS):
            try:
                table = presets.get(f"{net}/{variant}" if variant else net)
            except InputError:  # the net lacks what the variant changes
                continue
            lines.append(f"  {variant!r}: {digest(table)!r}\n")
    write_whole(FILE, "".join(lines))


if __name__ == "__main__":
    record()
