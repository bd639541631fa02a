"""The package installed as a stranger would: alone, from a folder or from git."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import distributions

import pytest
from references import ROOT

NORMALIZE = """
import sys, torch
before = {name.split(".")[0] for name in sys.modules}
import alexnet_kernels
print(alexnet_kernels.__file__)
x = torch.randn(2, 8, 5, 5, requires_grad=True)
y = alexnet_kernels.LocalResponseNorm(5, 2e-5)(x)
y.sum().backward()
expected = torch.nn.functional.local_response_norm(x, 5, 1e-4, 0.75, 2.0)
torch.testing.assert_close(y, expected)
loaded = {name.split(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names)
print(*(name for name in loaded if not name.startswith("_")))
"""

# Hugging Face's package of this name, as far as it matters
STAND_IN = {
    "pyproject.toml": '[project]\nname = "kernels"\nversion = "0.0.1"\n',
    "kernels/__init__.py": "def get_kernel(name):\n    return name\n",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the distribution, in a git repository: builds leave files."""
    folder = tmp_path_factory.mktemp("repository")
    waste = shutil.ignore_patterns("__pycache__", "build", "*.egg-info", ".*", "kernel_benchmarks")
    shutil.copytree(ROOT, folder / "kernels", ignore=waste)
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True)
    return folder / "kernels"


def install(site, *what):
    """Install into a folder, with what there is for building, and without a network."""
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "-q", *options, "--target", str(site), *what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def in_a_process(site, code):
    env = {**os.environ, "PYTHONPATH": str(site), "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, cwd=site.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def distribution(site, name):
    (installed,) = distributions(name=name, path=[str(site)])
    return installed


def normalizes(site):
    """A tensor from another folder, with no other package than torch's own and Triton."""
    file, loaded = in_a_process(site, NORMALIZE)
    assert file == str(site / "alexnet_kernels" / "__init__.py")
    torchs = {"numpy", "sympy", "mpmath"}
    assert set(loaded.split()) <= {"alexnet_kernels", "triton", *torchs}


def test_from_a_folder_beside_another_package_named_kernels(source, tmp_path):
    other, site = tmp_path / "other", tmp_path / "site"
    for name, text in STAND_IN.items():
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_text(text)
    install(site, str(source), str(other))
    normalizes(site)
    both = "import alexnet_kernels, kernels; print(kernels.get_kernel('a'), alexnet_kernels.mode())"
    assert in_a_process(site, both) == ["a auto"]
    ours, theirs = (
        {str(file) for file in distribution(site, name).files or []}
        for name in ("alexnet-kernels", "kernels")
    )
    assert "alexnet_kernels/native.c" in ours and "alexnet_kernels/py.typed" in ours
    assert "kernels/__init__.py" in theirs and not ours & theirs
    assert {file.split("/")[0].split("-")[0] for file in ours} == {"alexnet_kernels"}


def test_from_git(source, tmp_path):
    site = tmp_path / "site"
    install(site, f"git+file://{source.parent}#subdirectory=kernels")
    normalizes(site)
    requires = distribution(site, "alexnet-kernels").requires or []
    names = {line.split(">")[0] for line in requires if "extra" not in line}
    assert names == {"torch", "numpy", "triton"}
