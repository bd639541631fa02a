"""Results: where they lie, whole or not at all, with provenance."""

import json
import re
import subprocess

import pytest

from alexnet import results
from alexnet.errors import InputError

RESULT = {
    "experiment": "figure1",
    "profile": "embedded",
    "metrics": {"error": 0.1 + 0.2, "missing": None},
}


def test_runs_are_in_the_repository_or_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.delenv("ALEXNET_RUNS", raising=False)
    assert results.runs("embedded") == results.ROOT.resolve() / "runs" / "embedded"
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path))
    assert results.runs("embedded") == tmp_path / "embedded"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALEXNET_RUNS", "near")
    assert results.runs("x") == tmp_path / "near" / "x"


def test_the_hash_of_a_config_is_of_its_content():
    one = results.config_hash({"a": 1, "b": [1.5, None]})
    assert one == results.config_hash({"b": [1.5, None], "a": 1}) and re.fullmatch(
        "[0-9a-f]{16}", one
    )
    assert (
        len(
            {
                one,
                results.config_hash({"a": 2, "b": [1.5, None]}),
                results.config_hash({"a": 1}),
                results.config_hash([]),
            }
        )
        == 4
    )


def test_a_result_comes_back_as_saved(tmp_path):
    path = results.save(RESULT, tmp_path / "new" / "folder")
    assert (
        path == tmp_path / "new" / "folder" / "figure1.json"
        and results.load("figure1", path.parent) == RESULT
    )
    assert [p.name for p in path.parent.iterdir()] == [
        "figure1.json"
    ] and path.read_text().endswith("}\n")
    results.save(RESULT | {"profile": "cifar10"}, path.parent)
    assert results.load("figure1", path.parent)["profile"] == "cifar10"
    assert results.load("errors", path.parent) is None


def test_the_archive_is_in_the_repository(tmp_path, monkeypatch):
    assert results.ARCHIVE == results.ROOT / "results"
    monkeypatch.setattr(results, "ARCHIVE", tmp_path)
    results.save(RESULT, tmp_path / "embedded")
    assert results.archived("figure1", "embedded") == RESULT
    assert results.archived("figure1", "cifar10") is None


def test_provenance_says_where_and_with_what():
    found = results.provenance(12.34)
    assert json.loads(json.dumps(found)) == found
    assert (
        found["wall_seconds"] == 12.3
        and found["hardware"]["cores"] >= 1
        and found["hardware"]["processor"]
    )
    assert (
        found["versions"]["torch"]
        and found["versions"]["numpy"]
        and found["versions"]["python"].startswith("3.")
    )


def test_the_commit_is_dirty_by_code_and_not_by_results(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    (tmp_path / "results").mkdir()
    (tmp_path / "package").mkdir()
    for name in ("results/a.json", "package/code.py"):
        (tmp_path / name).write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    monkeypatch.setattr(results, "HERE", tmp_path / "package")
    clean = results.provenance(0)["commit"]
    (tmp_path / "results" / "a.json").write_text("2\n")
    (tmp_path / "results" / "b.json").write_text("2\n")
    assert re.fullmatch("[0-9a-f]{12}", clean) and results.provenance(0)["commit"] == clean
    (tmp_path / "package" / "code.py").write_text("2\n")
    assert results.provenance(0)["commit"] == f"{clean}-dirty"
    monkeypatch.setattr(results, "HERE", tmp_path.parent / "nowhere")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", "/")
    assert results.provenance(0)["commit"] is None


def part(*seeds, provenance=None, **metrics):
    by_seed = {"images": 8, "nets": {"full": {str(seed): seed / 10 for seed in seeds}}}
    return {
        "experiment": "ablations",
        "profile": "embedded",
        "config_hash": "ab",
        "seeds": list(seeds),
        "data": {"title": "shapes"},
    } | {
        "metrics": by_seed | metrics,
        "provenance": provenance or {"commit": f"of {seeds[0]}"},
    }


def test_seeds_of_several_runs_are_joined_and_each_keeps_its_provenance():
    two = results.join(part(0, 1), part(2))
    three = results.join(two, part(3, 4))
    assert two["seeds"] == [0, 1, 2] and three["seeds"] == [0, 1, 2, 3, 4]
    assert three["metrics"] == {
        "images": 8,
        "nets": {"full": {"0": 0.0, "1": 0.1, "2": 0.2, "3": 0.3, "4": 0.4}},
    }
    earlier = [{"seeds": [0, 1], "commit": "of 0"}, {"seeds": [2], "commit": "of 2"}]
    assert three["provenance"] == {"commit": "of 3", "earlier": earlier}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (part(2) | {"config_hash": "cd"}, "cannot be joined: their config_hash differ"),
        (part(2) | {"data": {"title": "cats"}}, "their data differ"),
        (part(1, 2), "both have seed 1"),
        (part(2, images=9), "they differ in ablations, images; remove the archived one"),
    ],
)
def test_what_does_not_belong_together_is_not_joined(other, told):
    with pytest.raises(InputError, match=told):
        results.join(part(0, 1), other)
