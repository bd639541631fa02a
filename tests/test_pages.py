"""The pages on using the package: every snippet runs, in the order of its page."""

import io
import re
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from alexnet import cli
from tests.images import image_folder, photograph

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[1]


def snippets(page):
    """Its code, each with the language and the number of its first line."""
    text = (ROOT / "book" / f"{page}.md").read_text()
    for match in re.finditer(r"^```(sh|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield match[1], match[2], text.count("\n", 0, match.start(2)) + 1


def run(page, names, skip=None):
    """Run a page's snippets; returns what each command printed."""
    printed = {}
    for language, code, line in snippets(page):
        if language == "sh":
            for command in code.splitlines():
                program, *words = shlex.split(command)
                out = io.StringIO()
                with redirect_stdout(out):
                    status = cli.main(words)
                assert (program, status) == ("alexnet", 0), f"{page}:{line}: {command}"
                printed[command] = out.getvalue()
        elif not (skip and skip in code):
            exec(compile("\n" * (line - 1) + code, f"{page}.md", "exec"), names)
    return printed


@pytest.fixture
def place(straight, packs72, tmp_path, monkeypatch):
    """A folder with what the pages begin with: a run, its data, photographs."""
    monkeypatch.chdir(tmp_path)
    Path("run").symlink_to(straight)
    Path("data").symlink_to(packs72)
    Path("photos").mkdir()
    for seed, name in enumerate(("cat", "dog")):
        photograph(90, 80, seed).save(f"photos/{name}.jpg")


def check_use(skip=None):
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
    names = {"repository": str(ROOT)}
    printed = run("use", names, skip)
    assert "photos/cat.jpg" in printed["alexnet predict run photos"]
    assert printed["alexnet predict net.onnx photos --csv"].startswith("image,rank,class")
    assert names["loss"].isfinite() and names["maps"].shape == (2, 96, 27, 27)
    assert Path("predictions.png").exists() and Path("net.pt2").exists()
    return names


def test_the_page_on_use(place):
    check_use(skip="torch.compile")


@pytest.mark.slow
def test_the_page_on_use_with_the_compiler(place):
    assert check_use()["logits"].shape == (4, 3)


def test_the_page_on_your_own_classes(straight, tmp_path, monkeypatch):
    pytest.importorskip("sklearn", reason="the extra `experiments` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    monkeypatch.chdir(tmp_path)
    image_folder(Path("mine"), [(90, 80)] * 10, ["beach", "forest"])
    Path("pretrained").symlink_to(straight)
    names = {}
    printed = run("fine-tuning", names)
    assert printed["alexnet evaluate run --data data"].startswith("test, 2 images, one view: top-1")
    assert "beach" in printed["alexnet predict net.onnx mine"]
    assert names["labels"]["train"].shape == (16,)
