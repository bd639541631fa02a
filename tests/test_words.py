"""Pages, guides and messages use the field's words: the private expressions listed here do not come
back."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each a regular expression between word boundaries, whatever the case, and what to write instead.
WORDS = {
    r"hangs": "depends",
    r"hang(?:ing)? on": "depend on",
    r"reckon\w*": "compute, count",
    r"bends?": "a nonlinearity; applies a nonlinearity",
    r"told against": "compared with",
    r"(?:is|are|was|were) told(?! of)": "the page says so",
    r"told otherwise": "unless set",
    r"first weights": "initial weights, initialization",
    r"first biases": "initial biases",
    r"lay (?:them|it|these|those) in(?:to)?": "put them in",
    r"(?:can|could) bear": "can hold",
    r"knows? (?:not|it knows)": "does not know",
    r"robbed": "loses",
    r"in silence": "silently, without an error",
    r"who has no": "without",
    r"dear(?:er|est)?": "expensive",
    r"lets? a person": "a person watches",
    r"lacked patience": "too few steps cannot be the reason",
    r"the name of a recipe": "a reputation for",
    r"not of the seed": "not caused by the seed",
    r"anew while": "recomputed at every build",
    r"a matter of addresses": "say what is computed",
    r"is nobody's choice": "was not chosen",
    r"but for": "except for",
    r"for want of": "for lack of",
    r"be had (?:again|from|for)": "be recomputed, be obtained",
    r"what was asked": "the targets, the requirements",
    r"(?:was|were|is) good for": "contributes",
    r"goes on where it was": "continues where it stopped",
    r"heeds?": "handles, obeys",
    r"is no promise": "is no guarantee",
    r"another world": "different",
    r"by their making": "by construction",
    r"on what that": "what that depends on",
    r"at work on a picture": "classifies a picture",
}
# Names of results in the archive, which cannot change without it.
NAMES = ("first weights: He's", "input and first weights: both of these")
PAGES = ("book/*.md", "README.md", "CONTRIBUTING.md", "kernels/README.md", "benchmarks/README.md")
TABLES = ("alexnet/claims/claims.yml", "alexnet/labnotebook.yml", "book/_static/widgets/*.js")
CODE = ("alexnet/**/*.py", "kernels/alexnet_kernels/**/*.py", "scripts/*.py")


def notebook(path: Path) -> str:
    """Prose, code, captions and descriptions of figures; not what was printed."""
    cells = json.loads(path.read_text())["cells"]
    settings = (json.dumps(cell["metadata"], ensure_ascii=False) for cell in cells)
    return "\n".join([*("".join(cell["source"]) for cell in cells), *settings])


def strings(path: Path) -> str:
    """All string literals of a module, its messages and docstrings."""
    nodes = ast.walk(ast.parse(path.read_text()))
    constants = (node.value for node in nodes if isinstance(node, ast.Constant))
    return "\n".join(value for value in constants if isinstance(value, str))


def sources() -> Iterator[tuple[str, str]]:
    """Every text that a reader or a user may see, by the name of its file."""
    readers = {("book/*.ipynb",): notebook, PAGES + TABLES: Path.read_text, CODE: strings}
    for patterns, read in readers.items():
        for pattern in patterns:
            paths = sorted(ROOT.glob(pattern))
            assert paths, f"nothing fits {pattern}"
            yield from ((path.relative_to(ROOT).as_posix(), read(path)) for path in paths)


def found(text: str) -> list[str]:
    """What of WORDS a text has, each with some words around it and what to write instead."""
    for name in NAMES:
        text = text.replace(name, "")
    text = re.sub(r"\s+", " ", text)
    return [
        f"...{text[max(0, match.start() - 40) : match.end() + 20]}...: write {instead}"
        for word, instead in WORDS.items()
        for match in re.finditer(rf"\b(?:{word})\b", text, re.IGNORECASE)
    ]


@pytest.mark.parametrize("name, text", [pytest.param(*each, id=each[0]) for each in sources()])
def test_no_private_words(name, text):
    assert found(text) == []


def test_the_scan_reads_notebooks_pages_and_messages():
    texts = dict(sources())
    assert "Reducing overfitting" in texts["book/04-overfitting.ipynb"]  # prose
    assert "crop_and_reflect" in texts["book/04-overfitting.ipynb"]  # code
    assert "fig-crops" in texts["book/04-overfitting.ipynb"]  # settings, captions among them
    assert "the first one given is the one used here" in texts["book/glossary.md"]
    assert "there is no experiment" in texts["alexnet/experiments/__init__.py"]  # an f-string
    assert (
        "An experiment is made of entries" in texts["alexnet/experiments/__init__.py"]
    )  # a docstring


@pytest.mark.parametrize(
    "text",
    [
        "On what the factor hangs",
        "it has been reckoned anew",
        "He's first\nweights",
        "Lay them into one folder",
        "as large as two cards could bear",
        "A plan that is changed is told.",
        "a small part, but for rounding",
    ],
)
def test_private_words_are_found(text):
    assert len(found(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "windows that hang over the border",
        "Two nets bear the name",
        "the first weight; weights of the first layer",
        "a folder of its own, not the folder above",
        "a change that they retold",
        "first weights: He's",
    ],
)
def test_legitimate_uses_are_left_alone(text):
    assert found(text) == []
