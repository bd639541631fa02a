"""Tables: aligned as text, marked up for a notebook."""

from alexnet.tables import Table

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
    assert (
        Table(["a", "b"], []) == "a  b" and Table(["a"], [])._repr_markdown_() == "| a |\n| --- |"
    )
