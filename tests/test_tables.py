"""Tables: aligned as text, marked up for a notebook."""

import pytest

from alexnet.tables import Table, align, duration

HEAD = ["net", "error", "by seed"]
ROWS = [["full", "9.5 %", "9.1  9.9"], ["without"], ["  crops | all", "+10.25", "10*  _10_"]]


def test_text_is_aligned_and_numbers_stand_to_the_right():
    assert Table(HEAD, ROWS, ["*: a note"]).splitlines() == [
        "net             error  by seed",
        "full            9.5 %  9.1  9.9",
        "without",
        "  crops | all  +10.25  10*  _10_",
        "*: a note",
    ]


def test_a_notebook_shows_a_table_of_the_same_cells():
    table = Table(HEAD, ROWS, ["*: a note", "another"])
    assert table._repr_markdown_().splitlines() == [
        "| net | error | by seed |",
        "| --- | ---: | --- |",
        "| full | 9.5 % | 9.1  9.9 |",
        "| *without* |  |  |",
        r"| &ensp;&ensp;crops \| all | +10.25 | 10\*  \_10\_ |",
        "",
        r"\*: a note<br>",
        "another",
    ]
    assert repr(table) == str(table) == table


def test_a_table_of_nothing_is_its_head():
    assert Table(["a", "b"], []) == "a  b"
    assert Table(["a"], [])._repr_markdown_() == "| a |\n| --- |"


def test_rows_are_aligned_and_nothing_follows_the_last_cell():
    rows = [("a", "1", "x"), ("bcd", "22", "")]
    assert align(rows) == ["a    1   x", "bcd  22"]
    assert align(rows, [False, True, False]) == ["a     1  x", "bcd  22"]
    with pytest.raises(ValueError, match="zip"):
        align([("a", "b"), ("c",)])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 second"),
        (1.4, "1 second"),
        (1.6, "2 seconds"),
        (119.4, "119 seconds"),
        (120, "2 minutes"),
        (3600, "60 minutes"),
        (7200, "2 hours"),
        (7200 + 1200, "2 hours 20 minutes"),
        (3 * 3600 + 59 * 60 + 45, "4 hours"),
        (2 * 86400 + 3600, "2 days 1 hour"),
        (86400, "24 hours"),
        (3 * 86400 + 5 * 3600, "3 days 5 hours"),
    ],
)
def test_durations_have_two_units_at_most(seconds, words):
    assert duration(seconds) == words
