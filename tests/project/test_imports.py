"""What may import what, what setup.cfg declares, and how long files and functions are.

Everything here reads the sources; `test_lazy_import.py` runs them. Longer than 400 lines because
all rules share one reading of the imports.
"""

from __future__ import annotations

import ast
import configparser
import dataclasses
import pathlib
import re
import sys
from collections.abc import Callable, Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHIPPED = ("musicvae_jax", "data_pipeline", "experiments")
PACKAGES = (*SHIPPED, "tests")

_PURE = ("musicvae_jax.config", "musicvae_jax.tasks")
_SHARED = (*_PURE, "musicvae_jax.tokens")
_BATCHES = tuple(f"musicvae_jax.{name}" for name in ("data", "devices", "metrics", "objectives"))
_TRAINING = (*_BATCHES, "musicvae_jax.models", "musicvae_jax.storage", "musicvae_jax.training")
# Folder -> what its modules may import of this project beside the folder itself, `config`,
# `tasks` and `tokens`; the longest name that fits an importer decides.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "tests": PACKAGES,
    "experiments": SHIPPED,
    "data_pipeline": ("data_pipeline",),
    "data_pipeline.reading": (),
    "data_pipeline.codecs": ("data_pipeline.reading",),
    "data_pipeline.fast": (
        "data_pipeline.codecs",
        "data_pipeline.compiled",
        "data_pipeline.reading",
    ),
    "data_pipeline.render": (
        "data_pipeline.atomic_write",
        "data_pipeline.codecs",
        "data_pipeline.reading",
    ),
    "musicvae_jax": (*_BATCHES, "musicvae_jax.models", "musicvae_jax.latent"),
    "musicvae_jax.config": (),
    "musicvae_jax.tasks": ("musicvae_jax.config",),
    "musicvae_jax.tokens": ("musicvae_jax.config", "musicvae_jax.tasks"),
    "musicvae_jax.priors": (),
    "musicvae_jax.models": ("musicvae_jax.objectives",),
    "musicvae_jax.devices": (),
    "musicvae_jax.storage": ("musicvae_jax.data", "musicvae_jax.devices"),
    "musicvae_jax.training": _TRAINING,
    "musicvae_jax.sweep": _TRAINING,
    "musicvae_jax.latent": (
        "musicvae_jax.interop",
        "musicvae_jax.models",
        "musicvae_jax.objectives",
        "musicvae_jax.pretrained",
        "musicvae_jax.priors",
        "musicvae_jax.storage",
    ),
    "musicvae_jax.pretrained": (),
    "musicvae_jax.interop": (
        "musicvae_jax.models",
        "musicvae_jax.priors",
        "musicvae_jax.storage",
    ),
    "musicvae_jax.analysis": (),
}
# Third-party module -> the only shipped modules that may import it.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "flax": ("musicvae_jax.models",),
    "flax.struct": (
        "musicvae_jax.models",
        "musicvae_jax.training.state",
        "musicvae_jax.training.optimiser",
    ),
    "orbax": ("musicvae_jax.storage",),
    "safetensors": ("musicvae_jax.interop",),
    "optax": (
        "musicvae_jax.latent.flow",
        "musicvae_jax.training.step",
        "musicvae_jax.training.optimiser",
    ),
    "note_seq": ("data_pipeline",),
    "music21": ("data_pipeline",),
    "ray": ("data_pipeline.conversion.cluster",),
    "starlette": ("experiments.studio.app",),
    "uvicorn": ("experiments.studio.app",),
    "jinja2": ("data_pipeline.reporting.html_pages",),
    "matplotlib": ("data_pipeline.render", "data_pipeline.reporting"),
    "absl": ("data_pipeline", "experiments"),
    "jax": ("musicvae_jax", "experiments"),
}
# Distribution -> the extra that brings it: imported inside functions, core runs without.
IN_EXTRA = {
    "flatbuffers": "jax_export",
    "google-crc32c": "interop",
    "music21": "demo",
    "pyfluidsynth": "sound",
    "ray": "cluster",
    "starlette": "studio",
    "torch": "bench",
    "uvicorn": "studio",
    "verovio": "score",
}
# Modules that are only ever imported inside a function, so that they may import an extra.
BEHIND_A_FUNCTION = (
    "experiments.benchmarks.support.torch_lean",
    "experiments.benchmarks.support.torch_model",
    "experiments.studio.app",
)
# Distributions of `dev` that no test imports, and why they are there.
TOOLS = {
    "ipykernel": "runs the cells of docs/quickstart.ipynb",
    "mypy": "make test runs it",
    "pytest-timeout": "ends a test that waits for ever",
    "pytest-xdist": "pytest -n",
    "ruff": "make test runs it",
    "setuptools": "a test builds a wheel without a network",
    "types-tqdm": "mypy reads it",
}
# Modules whose distribution has another name.
DISTRIBUTIONS = {
    "absl": "absl-py",
    "fluidsynth": "pyfluidsynth",
    "orbax": "orbax-checkpoint",
    "sklearn": "scikit-learn",
}


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported module: by whom, which, and whether importing the importer imports it."""

    importer: str
    module: str
    top_level: bool

    @property
    def distribution(self) -> str:
        """Name under which pip knows the module."""
        name = self.module.split(".")[0]
        return _pip_name(DISTRIBUTIONS.get(name, name))

    @property
    def is_third_party(self) -> bool:
        """Neither ours (also what tests share) nor the standard library's."""
        name = self.module.split(".")[0]
        ours = name in PACKAGES or (ROOT / "tests" / f"{name}.py").is_file()
        return not ours and name not in sys.stdlib_module_names


def _pip_name(name: str) -> str:
    return name.replace("_", "-").lower()


def _files(packages: tuple[str, ...]) -> list[pathlib.Path]:
    return sorted(path for name in packages for path in (ROOT / name).rglob("*.py"))


def _module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _within(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in names)


def _imported(node: ast.AST) -> list[str]:
    """Modules that one statement or call imports or looks up."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        # `from a import b` may name a module a.b: a file of ours, or (unknown) a name.
        return [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = ast.unparse(node.func).split(".")[-1]
        if called in ("find_spec", "import_module", "importorskip"):
            return [str(node.args[0].value)]
    return []


def imports_of(importer: str, source: str) -> Iterator[Import]:
    """List what a module imports, at its top level and inside functions."""

    def visit(node: ast.AST, top_level: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for module in _imported(child):
                yield Import(importer, module, top_level)
            yield from visit(child, top_level and not inside)

    yield from visit(ast.parse(source), True)


def _all_imports(packages: tuple[str, ...]) -> list[Import]:
    return [
        found
        for path in _files(packages)
        for found in imports_of(_module_name(path), path.read_text(encoding="utf-8"))
    ]


def direction_error(found: Import) -> str:
    """Say which rule an import breaks; empty when it breaks none."""
    line = f"{found.importer} imports {found.module}"
    if found.module.startswith("."):
        return f"{line}: imports are absolute"
    rule = max((name for name in MAY_IMPORT if _within(found.importer, (name,))), key=len)
    allowed = MAY_IMPORT[rule] if found.importer in _SHARED else (*MAY_IMPORT[rule], *_SHARED)
    is_folder = (ROOT / rule.replace(".", "/")).is_dir() and "." in rule
    allowed = (*allowed, rule) if is_folder else allowed
    if found.module.split(".")[0] in PACKAGES and not _within(found.module, allowed):
        return f"{line}: {rule} may import {', '.join(allowed) or 'nothing of ours'}"
    if not found.is_third_party or found.importer.split(".")[0] == "tests":
        return ""
    names = [name for name in ONLY_IN if _within(found.module, (name,))]
    if names and not _within(found.importer, ONLY_IN[max(names, key=len)]):
        return f"{line}: only {', '.join(ONLY_IN[max(names, key=len)])} may"
    if found.importer in _PURE:
        return f"{line}: {found.importer} is pure Python"
    return ""


def _requirements(text: str) -> dict[str, str]:
    """Read requirement lines: {distribution: the whole line}."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return {_pip_name(re.split(r"[^\w.-]", line)[0]): line for line in lines}


@pytest.fixture(scope="module")
def declared() -> dict[str, dict[str, str]]:
    """Requirements of setup.cfg: {"core" or extra: {distribution: line}}."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    groups = {"core": _requirements(parser["options"]["install_requires"])}
    extras = parser["options.extras_require"]
    return groups | {name: _requirements(extras[name]) for name in extras}


SHIPPED_IMPORTS = _all_imports(SHIPPED)
TEST_IMPORTS = _all_imports(("tests",))


def test_every_import_goes_the_allowed_way() -> None:
    errors = [direction_error(found) for found in SHIPPED_IMPORTS + TEST_IMPORTS]
    assert [error for error in errors if error] == []


def _folder(module: str) -> str:
    """Name the folder of a module; modules directly in a package stand for themselves."""
    return ".".join(module.split(".")[:2])


def _circles(imports: list[Import], part_of: Callable[[str], str] = str) -> list[set[str]]:
    """Return the sets of modules, or of their folders, that import each other.

    It does not matter where the imports stand; `part_of` names the part that a module belongs to.
    """
    modules = {_module_name(path) for path in _files(SHIPPED)}
    targets: dict[str, set[str]] = {part_of(name): set() for name in modules}
    for found in imports:
        names = (found.module, found.module.rpartition(".")[0])
        target = next((name for name in names if name in modules), found.importer)
        targets[part_of(found.importer)] |= {part_of(target)} - {part_of(found.importer)}

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = targets[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    reachable = {name: reached(name) for name in targets}
    circles = []
    for name in sorted(targets):
        circle = {other for other in reachable[name] if name in reachable[other]}
        if circle and circle not in circles:
            circles.append(circle)
    return circles


def test_no_modules_import_each_other() -> None:
    assert _circles(SHIPPED_IMPORTS) == []


@pytest.mark.parametrize("package", ["musicvae_jax", "data_pipeline"])
def test_no_folders_of_a_library_import_each_other(package: str) -> None:
    inside = [found for found in SHIPPED_IMPORTS if _within(found.importer, (package,))]
    assert _circles(inside, _folder) == []


def test_a_circle_is_seen() -> None:
    one, other = "musicvae_jax.config", "musicvae_jax.tasks"
    back = list(imports_of(one, f"def f():\n from {other} import get_task"))
    assert any({one, other} <= circle for circle in _circles(SHIPPED_IMPORTS + back))
    render, reporting = "data_pipeline.render.scores", "data_pipeline.reporting"
    back = list(imports_of(render, f"from {reporting} import charts"))
    folders = _circles(SHIPPED_IMPORTS + back, _folder)
    assert any({_folder(render), reporting} <= circle for circle in folders)


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in _files(PACKAGES)}), ids=lambda path: path.name
)
def test_folders_are_surveyable(folder: pathlib.Path) -> None:
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= 16


@pytest.mark.parametrize(
    ("importer", "source", "part"),
    [
        (
            "data_pipeline.selection.store",
            "from musicvae_jax import data",
            "may import data_pipeline",
        ),
        (
            "data_pipeline.selection.store",
            "def f():\n import jax.numpy",
            "only musicvae_jax, experiments",
        ),
        (
            "musicvae_jax.data",
            "from data_pipeline.selection import store",
            "musicvae_jax may import",
        ),
        ("musicvae_jax.objectives", "import flax.linen as nn", "only musicvae_jax.models may"),
        ("musicvae_jax.training.step", "from flax import linen", "only musicvae_jax.models may"),
        ("musicvae_jax.storage.run_folder", "from musicvae_jax.latent import paths", "storage may"),
        ("musicvae_jax.latent.operations", "import note_seq", "only data_pipeline"),
        (
            "musicvae_jax.latent.musicvae",
            "from orbax import checkpoint",
            "only musicvae_jax.storage may",
        ),
        ("musicvae_jax.config", "import numpy", "is pure Python"),
        ("musicvae_jax.config", "from musicvae_jax import tasks", "nothing of ours"),
        ("musicvae_jax.tasks", "from . import config", "imports are absolute"),
        ("experiments.train", "import tests.conftest", "experiments may import"),
    ],
)
def test_a_wrong_import_is_seen(importer: str, source: str, part: str) -> None:
    errors = [direction_error(found) for found in imports_of(importer, source)]
    assert len(errors) == 1
    assert part in errors[0]


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("musicvae_jax.training.state", "from flax import struct"),
        ("musicvae_jax.models.lstm", "from flax import linen"),
        ("experiments.train", "from data_pipeline import cli\nimport jax"),
        ("data_pipeline.extraction.extract", "import note_seq, re, musicvae_jax.tasks"),
    ],
)
def test_a_right_import_passes(importer: str, source: str) -> None:
    assert [direction_error(found) for found in imports_of(importer, source)].count("") > 0
    assert not any(direction_error(found) for found in imports_of(importer, source))


def test_lookups_and_depth_are_seen() -> None:
    source = "import a.b\ndef f():\n from c import d\n importlib.util.find_spec('e')"
    found = list(imports_of("x", source))
    assert [(i.module, i.top_level) for i in found] == [("a.b", True), ("c.d", False), ("e", False)]


def test_the_shipped_packages_import_only_what_setup_cfg_declares(
    declared: dict[str, dict[str, str]],
) -> None:
    for found in SHIPPED_IMPORTS:
        if not found.is_third_party or found.distribution in declared["core"]:
            continue
        where = f"{found.importer} imports {found.module}"
        extra = IN_EXTRA.get(found.distribution)
        assert extra is not None, f"{where}: setup.cfg does not declare it"
        assert found.distribution in declared[extra], f"{where}: not in the extra {extra}"
        behind = found.importer in BEHIND_A_FUNCTION
        assert behind or not found.top_level, f"{where}: an extra's, so only inside a function"


def test_modules_behind_a_function_are() -> None:
    importers = [
        found
        for found in SHIPPED_IMPORTS
        if found.module.startswith(BEHIND_A_FUNCTION) and found.importer not in BEHIND_A_FUNCTION
    ]
    assert importers
    assert not any(found.top_level for found in importers)


def test_the_tests_import_only_what_the_dev_extra_brings(
    declared: dict[str, dict[str, str]],
) -> None:
    brought = declared["core"] | declared["dev"]
    missing = [i for i in TEST_IMPORTS if i.is_third_party and i.distribution not in brought]
    assert missing == []


def test_no_declared_dependency_is_unused(declared: dict[str, dict[str, str]]) -> None:
    shipped = {found.distribution for found in SHIPPED_IMPORTS}
    everywhere = shipped | {found.distribution for found in TEST_IMPORTS}
    assert sorted(set(declared["core"]) - shipped) == []
    assert sorted(set(declared["demo"]) - shipped) == []
    assert sorted(set(declared["dev"]) - everywhere - set(TOOLS)) == []
    assert sorted(set(TOOLS) - set(declared["dev"])) == []


def test_the_extras_agree_with_the_core(declared: dict[str, dict[str, str]]) -> None:
    assert declared["demo"].items() <= declared["dev"].items()
    versions = declared["core"]["jax"].removeprefix("jax")
    for extra in ("cuda", "tpu"):
        assert declared[extra]["jax"].split("]")[1] == versions


@pytest.mark.parametrize("path", _files(PACKAGES), ids=_module_name)
def test_files_and_functions_are_short(path: pathlib.Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert path.name not in ("utils.py", "helpers.py", "common.py")
    tree = ast.parse(source)
    reason = "Longer than 400 lines because" in (ast.get_docstring(tree) or "")
    assert reason or source.count("\n") <= 400
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 50, f"{node.name} has {lines} lines"


def _does_something(statement: ast.stmt) -> bool:
    """Whether a module-level statement is more than a definition."""
    if isinstance(statement, ast.If):
        return ast.unparse(statement.test) not in ("TYPE_CHECKING", "__name__ == '__main__'")
    if isinstance(statement, ast.Expr):
        # Flags and derivatives are declared by a call.
        declares = re.match(r"flags\.|\w+\.defvjp\(|\w+\.defjvp\(", ast.unparse(statement))
        return not isinstance(statement.value, ast.Constant) and declares is None
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        calls = [n for n in ast.walk(statement) if isinstance(n, ast.Call)]
        makes = r"(jnp|jax\.(numpy|random|device|local_device|config)|np\.load|open)\b"
        return any(re.match(makes, ast.unparse(call.func)) for call in calls)
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return not isinstance(statement, definitions)


@pytest.mark.parametrize("path", _files(SHIPPED), ids=_module_name)
def test_importing_a_module_only_defines(path: pathlib.Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [ast.unparse(s) for s in tree.body if _does_something(s)] == []
    settings = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "config"]
    if _within(_module_name(path), ("musicvae_jax",)):
        assert [s for s in settings if ast.unparse(s) == "jax.config"] == []


def test_a_module_that_acts_when_imported_is_seen() -> None:
    acting = ["print(1)", "x = jnp.zeros(3)", "jax.config.update('a', 1)", "for i in a:\n b = i"]
    assert all(_does_something(ast.parse(source).body[0]) for source in acting)


def test_no_type_check_is_switched_off() -> None:
    mark = "# type: " + "ignore"
    assert [str(p) for p in _files(PACKAGES) if mark in p.read_text(encoding="utf-8")] == []
