"""Both distributions, built as for an index and installed as a stranger would: their wheels, in an
environment that has nothing of this clone. Without a network: what they need is borrowed."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
OURS = {"alexnet-kernels": "kernels", "alexnet-reproduced": "."}
URL = "https://git.example/alexnet"
WASTE = shutil.ignore_patterns(".*", "_build", "build", "dist", "runs", "__pycache__", "*.egg-info")
# what is read beside the modules
DATA = ("alexnet/**/*.yml", "alexnet/**/*.json", "alexnet/py.typed", "results/**/*.json")
KERNELS = ("alexnet_kernels/*.c", "alexnet_kernels/*.h", "alexnet_kernels/py.typed")
PROGRAM = """
import json, sys
from pathlib import Path
import torch
import alexnet, alexnet_kernels
from alexnet import AlexNet, pretrained, profiles
from alexnet.claims import contents, plans
from alexnet_kernels import _native

place = Path(sys.prefix)
assert all(place in Path(one.__file__).parents for one in (alexnet, alexnet_kernels)), alexnet
net = AlexNet("source", num_classes=10, width=1 / 8)
assert net(torch.zeros(1, 3, 224, 224)).shape == (1, 10)
plan = {name: sorted(plans.of_profile(name)) for name in profiles.names()}
print(json.dumps({"weights": pretrained.names(), "profiles": profiles.names(), "plans": plan}))
"""


def done(*command, cwd, **environment):
    """Run a command that has to succeed; what it printed."""
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1", **environment}
    words = [str(word) for word in command]
    result = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def clone(straight, packs72, tmp_path_factory):
    """A copy of the repository, with more weights that come along."""
    from alexnet import pretrained

    folder = tmp_path_factory.mktemp("clone") / "alexnet"
    shutil.copytree(ROOT, folder, ignore=WASTE)
    weights = folder / "results" / "weights" / "small.safetensors"
    weights.parent.mkdir(exist_ok=True)
    pretrained.save_pretrained(straight, weights, packs72, "CC BY 4.0")
    return folder


@pytest.fixture(scope="module")
def built(clone, tmp_path_factory):
    """A folder of source distributions, and of the wheels that were built from them."""
    out = tmp_path_factory.mktemp("built")
    for source in OURS.values():
        build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
        done(*build, cwd=clone, ALEXNET_REPOSITORY=f"{URL}.git")
    return out


@pytest.fixture(scope="module")
def own(built, tmp_path_factory):
    """An environment with both wheels and, at the end of its path, all that is installed here."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place)
    python = place / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps")
    done(*pip, "--no-index", *built.glob("*.whl"), cwd=place)
    site = Path(
        done(python, "-c", "import site; print(*site.getsitepackages())", cwd=place).strip()
    )
    paths = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (site / "borrowed.pth").write_text("\n".join(sorted(paths)))
    return place


def wheel(folder, name):
    (file,) = folder.glob(f"{name.replace('-', '_')}-{VERSION}-*.whl")
    return ZipFile(file)


def metadata(folder, name):
    inside = f"{name.replace('-', '_')}-{VERSION}.dist-info/METADATA"
    return message_from_bytes(wheel(folder, name).read(inside))


def contents(folder, name):
    """The files of a wheel, but for what describes the wheel itself."""
    file = wheel(folder, name)
    return {one: file.read(one) for one in file.namelist() if ".dist-info/" not in one}


def test_an_index_would_take_them(built):
    files = sorted(built.iterdir())
    assert len(files) == 4
    done(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=built)


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_a_wheel_is_the_same_from_the_clone_and_from_the_source_distribution(
    clone, built, tmp_path, name
):
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path)
    done(*build, OURS[name], cwd=clone)
    assert contents(tmp_path, name) == contents(built, name)


def test_wheels_have_every_module_and_what_modules_read(clone, built):
    found = {path: data for name in OURS for path, data in contents(built, name).items()}
    expected = {}
    for folder, patterns in ((clone, ("alexnet/**/*.py", *DATA)), (clone / "kernels", KERNELS)):
        for pattern in patterns:
            files = list(folder.glob(pattern))
            assert files, pattern
            expected |= {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    for path, data in expected.items():
        place = path.replace("results/", "alexnet/archive/", 1) if "results/" in path[:8] else path
        assert found.get(place) == data, place
    assert "alexnet/archive/weights/small.safetensors" in found
    tops = {path.partition("/")[0] for path in found}
    assert tops == {"alexnet", "alexnet_kernels"}


def test_source_distributions_have_the_source_and_no_half_of_the_tests(built):
    for name in OURS:
        (file,) = built.glob(f"{name.replace('-', '_')}-{VERSION}.tar.gz")
        with tarfile.open(file) as archive:
            inside = {path.partition("/")[2] for path in archive.getnames()}
        assert {"LICENSE", "README.md", "pyproject.toml"} <= inside
        assert not [path for path in inside if path.startswith(("tests/", "build/", "dist/"))]
        if name == "alexnet-reproduced":
            assert {"CITATION.cff", "setup.py", "alexnet/claims/claims.yml"} <= inside


def test_the_description_says_what_it_needs_and_links_to_the_repository(built):
    about = {name: metadata(built, name) for name in OURS}
    assert {one["Version"] for one in about.values()} == {VERSION}
    ours = about["alexnet-reproduced"]
    assert f"alexnet-kernels=={VERSION}" in (ours.get_all("Requires-Dist") or [])
    assert ours.get_all("Project-URL") == [f"Source, {URL}"]
    text = ours.get_payload()
    assert f"]({URL}/blob/v{VERSION}/book/use.md)" in text
    assert f"]({URL}/raw/v{VERSION}/.github/book.png)" in text
    assert "](book/" not in text and "](.github/" not in text


@pytest.mark.slow
def test_a_stranger_uses_the_package(own, tmp_path):
    """In a folder that has results of its own, which are not the archive."""
    from alexnet.claims import plans

    (tmp_path / "results").mkdir()
    known = json.loads(done(own / "bin" / "python", "-c", PROGRAM, cwd=tmp_path))
    assert "small" in known["weights"] and {"embedded", "ilsvrc2012"} <= set(known["profiles"])
    committed = plans.of_profile("caltech101-cpu")
    assert "ablations" in committed and sorted(known["plans"]["caltech101-cpu"]) == sorted(
        committed
    )
    alexnet = own / "bin" / "alexnet"
    assert done(alexnet, "--version", cwd=tmp_path) == f"alexnet {VERSION}\n"


@pytest.mark.slow
def test_a_stranger_reads_the_same_verdicts(own, tmp_path):
    from alexnet.claims import judge_all, reports

    said = done(own / "bin" / "alexnet", "claims", "--json", cwd=tmp_path)
    assert json.loads(said) == json.loads(reports.as_json(judge_all()))


@pytest.mark.slow
def test_a_stranger_names_a_photograph(own, splits, tmp_path):
    photo = tmp_path / "photo.png"
    Image.fromarray(splits["test"].gather([0])[0]).save(photo)
    said = done(own / "bin" / "alexnet", "predict", "small", photo, "--json", cwd=tmp_path)
    assert json.loads(said) and "sun" in said


@pytest.mark.slow
def test_the_archive_of_an_installation_stays_as_it_is(own, tmp_path):
    command = [own / "bin" / "alexnet", "reproduce", "--only", "recipe", "--archive"]
    environment = {**os.environ, "PYTHONPATH": ""}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 2 and "--archive writes into a clone" in result.stderr
