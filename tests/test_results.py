"""Results: where they lie, whole or not at all, with provenance."""

import json
import re
import subprocess

import pytest

from alexnet import results
from alexnet.errors import InputError

RECORD = {
    "experiment": "figure1",
    "profile": "embedded",
    "arm": "ReLU, rate 1/3",
    "seed": 3,
    "metrics": {"error": 0.1 + 0.2, "missing": None},
    "data": {"title": "pictographs"},
    "provenance": {"commit": None},
}


def test_runs_are_in_the_repository_or_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.delenv("ALEXNET_RUNS", raising=False)
    assert results.runs("embedded") == results.ROOT.resolve() / "runs" / "embedded"
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path))
    assert results.runs("embedded") == tmp_path / "embedded"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALEXNET_RUNS", "near")
    assert results.runs("x") == tmp_path / "near" / "x"


def test_an_entry_comes_back_as_saved(tmp_path):
    path = results.save(RECORD, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "figure1" / "ReLU-rate-1-3-3.json"
    assert results.load("figure1", tmp_path / "new" / "folder") == [RECORD]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.read_text().endswith("}\n")
    results.save(RECORD | {"profile": "cifar10"}, tmp_path / "new" / "folder")
    assert results.read(path)["profile"] == "cifar10"
    assert results.load("errors", tmp_path / "new" / "folder") == []


def test_entries_come_by_arm_and_seed(tmp_path):
    keys = [("b", 10), ("b", 2), ("a", None), ("a b", 1), ("a-b", 2)]
    for arm, seed in keys:
        results.save(RECORD | {"arm": arm, "seed": seed}, tmp_path)
    loaded = [(record["arm"], record["seed"]) for record in results.load("figure1", tmp_path)]
    assert loaded == [("a", None), ("a b", 1), ("a-b", 2), ("b", 2), ("b", 10)]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"metrics": {}}', json.dumps(RECORD | {"provenance": None})]
)
def test_a_damaged_file_is_named_with_the_remedy(tmp_path, text):
    path = results.save(RECORD, tmp_path)
    path.write_text(text)
    with pytest.raises(InputError, match=f"{path} is damaged: .* reproduce --only figure1`"):
        results.load("figure1", tmp_path)


def test_the_archive_is_in_the_repository():
    assert results.ARCHIVE == results.ROOT / "results"


def test_provenance_says_where_and_with_what():
    parts = [{"run": "a", "seconds": 12.04}, {"run": "b", "seconds": 0.3}]
    made = results.provenance(parts, 5)
    assert json.loads(json.dumps(made)) == made
    assert made["seconds"] == {"training": 12.3, "measuring": 5} and made["training"] == parts
    assert results.provenance()["seconds"] == {"training": None, "measuring": None}
    assert made["hardware"]["cores"] >= 1 and made["hardware"]["processor"]
    assert made["versions"]["torch"] and made["versions"]["numpy"]
    assert made["versions"]["python"].startswith("3.")


def test_the_commit_is_dirty_by_code_and_not_by_results(tmp_path, monkeypatch):
    def git(*words):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "results").mkdir()
    (tmp_path / "package").mkdir()
    for name in ("results/a.json", "package/code.py"):
        (tmp_path / name).write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    monkeypatch.setattr(results, "HERE", tmp_path / "package")
    clean = results.provenance()["commit"]
    (tmp_path / "results" / "a.json").write_text("2\n")
    (tmp_path / "results" / "b.json").write_text("2\n")
    assert re.fullmatch("[0-9a-f]{12}", clean) and results.provenance()["commit"] == clean
    (tmp_path / "package" / "code.py").write_text("2\n")
    assert results.provenance()["commit"] == f"{clean}-dirty"
    monkeypatch.setattr(results, "HERE", tmp_path.parent / "nowhere")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", "/")
    assert results.provenance()["commit"] is None
