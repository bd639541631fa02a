"""How the house is laid out: sizes of modules and functions, and which way imports run."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULE_LINES, FUNCTION_LINES = 400, 60


def files(*folders: str) -> dict[str, Path]:
    paths = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): path for path in paths}


MODULES = files("alexnet", "kernels/alexnet_kernels")
SIZED = MODULES | files("benchmarks", "kernels/kernel_benchmarks", "scripts")
# Longer than others: a Triton kernel is one function, with a group of arguments a line.
LONG_FUNCTIONS = {
    "kernels/alexnet_kernels/gpu/local_response_norm.py:backward_kernel",
    "kernels/alexnet_kernels/gpu/response_norm_pool.py:kernel",
    "kernels/alexnet_kernels/gpu/same_map_norm.py:kernel",
}

# The order in which imports run: a layer imports from itself and from those before it.
LAYERS = [
    ("kernels", ("alexnet_kernels",)),
    ("tables", ("alexnet.presets",)),
    ("network", ("alexnet.network", "alexnet.exchange")),
    ("training", ("alexnet.training", "alexnet.evaluation", "alexnet.export", "alexnet.imports")),
    ("experiments", ("alexnet.experiments", "alexnet.reproduce")),
    ("the command line", ("alexnet.cli", "alexnet.commands", "alexnet.__main__")),
]
# Common to all layers above the operators; they import from each other, and from no layer.
COMMON = ("alexnet.errors", "alexnet.files", "alexnet.keys", "alexnet.processes", "alexnet.signals")
COMMON += ("alexnet.container", "alexnet.tables")


def layer(module: str) -> int | None:
    """The number of a module's layer; None for those that belong to none."""
    for number, (_, names) in enumerate(LAYERS):
        if module.startswith(tuple(f"{name}." for name in names)) or module in names:
            return number
    return None


def name_of(path: str) -> str:
    module = path.removeprefix("kernels/").removesuffix(".py").replace("/", ".")
    return module.removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """All modules of ours that a module imports anywhere, outside `if TYPE_CHECKING`."""
    checked = [
        node
        for block in ast.walk(ast.parse(path.read_text()))
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    ]
    unchecked = {(node.lineno, node.col_offset) for node in checked if hasattr(node, "lineno")}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            if (node.lineno, node.col_offset) in unchecked:
                continue
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                assert node.level == 0, f"{path}: a relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in names if name.startswith("alexnet"))


def lengths(path: str) -> dict[str, int]:
    """The lines of each function, without those of its docstring."""
    found = {}
    for node in ast.walk(ast.parse(SIZED[path].read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            text = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
            lines = node.end_lineno - node.lineno + 1 - text
            found[f"{path}:{node.name}"] = max(lines, found.get(f"{path}:{node.name}", 0))
    return found


@pytest.mark.parametrize("path", SIZED)
def test_modules_and_functions_are_short(path):
    assert len(SIZED[path].read_text().splitlines()) <= MODULE_LINES
    long = {name for name, lines in lengths(path).items() if lines > FUNCTION_LINES}
    assert long == {name for name in LONG_FUNCTIONS if name.startswith(f"{path}:")}


@pytest.mark.parametrize("path", MODULES)
def test_imports_run_one_way(path):
    module, ours = name_of(path), layer(name_of(path))
    for imported in imports(MODULES[path]):
        theirs = layer(imported)
        wrong = ours is not None and theirs is not None and theirs > ours
        assert not wrong, f"{module} imports {imported}"
        if ours == 0:
            assert imported.startswith("alexnet_kernels"), f"{module} imports {imported}"
        if module.startswith("alexnet.data"):
            assert theirs in (None, 0, 1), f"{module} imports {imported}: data know no network"
        if module in COMMON:
            assert imported.startswith(COMMON), f"{module} imports {imported}"


def test_nothing_imports_what_is_not_installed():
    """benchmarks/, scripts/ and tests/ may import the package, and never the other way round."""
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            tops = {name.partition(".")[0] for name in names}
            assert not tops & {"benchmarks", "scripts", "tests"}, path


def test_each_module_has_a_docstring():
    for name, path in MODULES.items():
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert text or not path.read_text().strip(), name
