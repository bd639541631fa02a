"""How the house is laid out: sizes of modules and functions, and which way imports run."""

import ast
import importlib
import inspect
import re
from collections import Counter
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


# --- docstrings -----------------------------------------------------------------------------------

# By folder, how many public functions with two arguments or more have a docstring without "Args:".
# The numbers may only fall; what users and contributors call has none.
UNEXPLAINED = {"alexnet": 6, "alexnet/claims": 11, "alexnet/experiments": 8, "alexnet/imports": 1}
# What CONTRIBUTING.md and the modules' own pages have a contributor call or write, beside the
# functions on the book's page of the package.
CALLED = """
alexnet.claims.reports.chapter alexnet.errors.needs alexnet.errors.require
alexnet.experiments.protocol.Experiment.entries alexnet.experiments.protocol.Experiment.measure
alexnet.experiments.protocol.chosen alexnet.experiments.protocol.by_arm
alexnet.experiments.jobs.base alexnet.experiments.jobs.training_job
alexnet.experiments.store.record alexnet.files.write_whole alexnet.files.temporary_folder
alexnet.presets.operations.Operation.apply alexnet.presets.variants.with_activation
alexnet.processes.as_they_end alexnet.processes.process_pool alexnet.tables.align
alexnet.tables.markdown alexnet_kernels._operator.define alexnet_kernels.files.write_whole
""".split()


def arguments(function: ast.FunctionDef) -> int:
    """How many there are, but self and cls."""
    given = function.args
    names = [one.arg for one in given.posonlyargs + given.args + given.kwonlyargs]
    names += [one.arg for one in (given.vararg, given.kwarg) if one]
    return len({*names} - {"self", "cls"})


def unexplained(path: str) -> set[str]:
    """Public functions of a module that have two arguments or more and no "Args:".

    Left out are those that are explained where they are declared: methods that a base class in the
    same module has, operations' `apply`, what every experiment has; operators under `define`, which
    have the arguments of the function; and Triton's kernels, each of whose arguments has a comment.
    """
    if path.startswith("kernels/alexnet_kernels/gpu/"):
        return set()
    text = MODULES[path].read_text()
    body = ast.parse(text).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    is_experiment = re.search("^NAME = ", text, re.MULTILINE)
    elsewhere = {"entries", "measure", "collect", "table", "plot"} if is_experiment else set()
    found = set()
    for owner in (None, *classes):
        bases = (
            [base.id for base in classes[owner].bases if isinstance(base, ast.Name)]
            if owner
            else []
        )
        inherited = {
            node.name
            for base in bases
            for node in getattr(classes.get(base), "body", ())
            if isinstance(node, ast.FunctionDef)
        }
        if any("Operation" in base or "Norm" in base for base in bases):
            inherited.add("apply")
        for node in classes[owner].body if owner else body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                if any("define(" in ast.unparse(one) for one in node.decorator_list):
                    continue
                known = inherited if owner else elsewhere
                text = ast.get_docstring(node) or ""
                if arguments(node) > 1 and "Args:" not in text and node.name not in known:
                    found.add(".".join(filter(None, (name_of(path), owner, node.name))))
    return {name for name in found if "._" not in name.replace("alexnet_kernels._", "")}


def area(path: str) -> str:
    return path.removeprefix("kernels/").rpartition("/")[0]


@pytest.mark.parametrize("folder", sorted({area(path) for path in MODULES}))
def test_arguments_are_explained(folder):
    names = sorted(name for path in MODULES if area(path) == folder for name in unexplained(path))
    assert len(names) <= UNEXPLAINED.get(folder, 0), f"no Args in the docstrings of {names}"


def public() -> Iterator[object]:
    """What the packages export, the book's page of the package documents, and CALLED."""
    for package in ("alexnet", "alexnet_kernels"):
        module = importlib.import_module(package)
        yield from (getattr(module, name) for name in module.__all__)
    page = (ROOT / "book" / "api.md").read_text()
    entries = re.findall(r"^\.\. auto(\w+):: (\S+)\n((?: +:.*\n)*)", page, re.MULTILINE)
    assert len(entries) > 30
    for _, name, options in entries:
        yield (one := named(name))
        members = re.search(":members: (.+)", options)
        for member in members[1].split(", ") if members else ():
            yield getattr(one, member)
    yield from map(named, CALLED)


def named(path: str) -> object:
    """A module, or something in one, by its dotted name."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            one = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            one = getattr(one, part)
        return one
    raise LookupError(path)


def test_arguments_of_what_users_call_are_explained():
    lacking = {name for path in MODULES for name in unexplained(path)}
    checked, wrong = Counter(), []
    for one in public():
        methods = (
            []
            if not inspect.isclass(one)
            else [method for name, method in vars(one).items() if not name.startswith("_")]
        )
        for function in (one, *methods):
            function = inspect.unwrap(getattr(function, "__func__", function))
            if inspect.isfunction(function):
                name = f"{function.__module__}.{function.__qualname__}"
                checked[name] += 1
                wrong += [name] * (name in lacking)
    assert len(checked) > 100 and not wrong
