"""The direction of imports, what each room may know, and what the documents promise."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "convscope"
ORDER = (
    "rich_display",
    "escaping",
    "errors",
    "typing",
    "type_checks",
    "progress",
    "json_values",
    "files",
    "memory",
    "plugins",
    "layer_arithmetic",
    "blocks",
    "reference",
    "expr",
    "ops",
    "render",
    "images",
    "preprocess",
    "data",
    "filters",
    "cards",
    "traces",
    "models",
    "inputs",
    "training",
    "capture",
    "proof",
    "checking",
    "probe",
    "plot",
    "export",
    "server",
    "standalone",
    "cli",
    "notebook",
    "lessons",
)
"""A room imports only rooms above it; `server`, `cli` and `notebook` reach others through `import convscope as cs`."""
THROUGH_THE_FRONT = {"server", "cli", "notebook"}
TEXT_ALONE = {"render", "json_values", "type_checks", "typing"}
"""Rooms that only turn values into text, check arguments or name types; any room may use them."""
KNOW_TORCH = {"cards", "models", "training", "capture", "probe"}


@cache
def imports(path: Path) -> list[tuple[str, int]]:
    """Module and line of every import in a file."""
    result = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            result += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            result.append((node.module, node.lineno))
            result += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return result


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


FILES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or not path.name.startswith("__"))


def foreign(room: str, module: str) -> str:
    """Why a room may not import a module; empty if it may."""
    parts = module.split(".")
    if parts[0] != "convscope" or len(parts) == 1 or parts[1] not in ORDER:  # a name of the package itself
        return ""
    other = parts[1]
    if other != room and ORDER.index(other) >= ORDER.index(room):
        return f"{other} is not above {room}"
    if other != room and room in THROUGH_THE_FRONT and other not in TEXT_ALONE:
        return f"{room} goes through `import convscope as cs`"
    return ""


def test_a_room_imports_only_rooms_above_it() -> None:
    wrong = [
        f"{path}:{line} imports {module}: {reason}"
        for path in FILES
        for module, line in imports(path)
        if (reason := foreign(room_of(path), module))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("room", "module", "reason"),
    [
        ("ops", "convscope.server.app", "server is not above ops"),
        ("server", "convscope.models.loading", "server goes through `import convscope as cs`"),
        ("server", "convscope.models", "server goes through `import convscope as cs`"),
        ("server", "convscope.server.app", ""),
        ("ops", "numpy", ""),
        ("ops", "convscope.expr", ""),
    ],
)
def test_an_import_of_a_room_that_is_not_above_is_seen(room: str, module: str, reason: str) -> None:
    assert foreign(room, module) == reason


def test_only_some_rooms_know_torch() -> None:
    others = [path for path in FILES if room_of(path) not in KNOW_TORCH]
    wrong = [f"{p}:{line}" for p in others for module, line in imports(p) if module.split(".")[0] == "torch"]
    assert not wrong, "\n".join(wrong)


def test_the_two_witnesses_are_strangers() -> None:
    """A misunderstanding in a rule must not be able to hide in the reference, nor the reverse."""
    strangers = {"reference": {"expr", "ops", "render"}, "expr": {"reference"}, "ops": {"reference"}}
    wrong = [
        f"{path}:{line} imports {module}"
        for path in FILES
        for module, line in imports(path)
        if module.startswith("convscope.") and module.split(".")[1] in strangers.get(room_of(path), set())
    ]
    assert not wrong, "\n".join(wrong)


SUPPORT = {
    "ops": {"dependencies", "lookup", "op", "source_cells", "table", "titles", "vjp"},
    "reference": {
        "argument_checks",
        "backward_partition",
        "functional",
        "moments",
        "normalization_parts",
        "operation",
        "partition",
        "parts",
        "precision",
        "table",
        "training",
    },
}
"""Files that are no family of operations: what rows are made of, and what several families share."""


def families(room: str) -> set[str]:
    return {path.stem for path in (SOURCE / room).glob("*.py")} - SUPPORT[room] - {"__init__"}


def test_a_family_has_the_same_name_among_rules_and_definitions() -> None:
    """Rules of one cell may be no more than primitives that the table applies: then these have the name."""
    primitives = {path.stem for path in (SOURCE / "expr" / "primitives").glob("*.py")}
    assert families("ops") <= families("reference")
    assert families("reference") <= families("ops") | primitives


MOST_ANY = 8
"""Words `Any` in 1,000 lines: JSON, arguments whose schema is ATen's, libraries without types."""


def test_types_are_named() -> None:
    texts = [path.read_text() for path in FILES]
    words = sum(len(re.findall(r"\bAny\b", text)) for text in texts)
    assert 1000 * words <= MOST_ANY * sum(text.count("\n") for text in texts)


def test_plotting_loads_no_torch() -> None:
    code = "import sys, convscope.plot; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert result.stdout.strip() == "False"


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {room_of(path) for path in FILES}
    assert rooms <= set(ORDER)


def test_importing_loads_no_torch() -> None:
    """The package, its command line and the rooms of explanations, one after the other in one process."""
    code = """
import sys
def heavy(): return {"torch", "matplotlib", "lightning_fabric", "fastapi"} & {*sys.modules}
import convscope
print(heavy())
from convscope.cli import main
sys.argv[1:] = ["--help"]
print(heavy())
import convscope.ops, convscope.traces, convscope.proof
print(heavy())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert result.stdout.split() == ["set()"] * 3


@pytest.mark.parametrize(
    "there",
    ["None", "types.ModuleType('IPython')", "types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace())"],
    ids=["blocked", "half", "no formatter"],
)
def test_an_unusual_notebook_does_not_prevent_importing(there: str) -> None:
    code = f"import sys, types; sys.modules['IPython'] = {there}; import convscope; print(convscope.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_public_name_is_there_and_documented() -> None:
    import convscope as cs

    for name in dir(cs):
        assert getattr(cs, name).__doc__, name
    with pytest.raises(AttributeError, match="convscope has no 'trains'"):
        _ = cs.trains


def test_the_repository_speaks_of_the_product_alone() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False)
    if listed.returncode:
        pytest.skip("no git checkout here")
    words = ("/wo" + "rk/", "/ro" + "ot/")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yml"} or name in {"Makefile", ".ci/run"}:
            text = path.read_text()
            assert not any(word in text for word in words), name


def test_make_fuzz_runs_the_long_run_of_every_test_that_generates_its_input() -> None:
    variable = re.search(r"^FUZZ := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert variable is not None
    patterns = variable[1].replace("\\\n", " ").split()
    empty = [pattern for pattern in patterns if not list(ROOT.glob(pattern))]
    assert not empty, f"no such tests: {empty}"
    listed = {path for pattern in patterns for path in ROOT.glob(pattern)}
    generating = re.compile(r"@pytest\.mark\.study\n(?:@.*\n)*@given|^def fuzz\b|schemathesis\.", re.MULTILINE)
    wanted = {path for path in (ROOT / "tests").rglob("test_*.py") if generating.search(path.read_text())}
    assert wanted - listed == set()


def test_the_page_on_reliability_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "explanation" / "reliability.md").read_text()
    tests = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    files = set(re.findall(r"`(test_\w+\.py)`", text))
    functions = set(re.findall(r"`(test_\w+)`", text))
    assert len(files) > 5
    assert files <= tests.keys(), files - tests.keys()
    assert functions <= {name for body in tests.values() for name in re.findall(r"def (test_\w+)", body)}


def test_the_architecture_page_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    named = re.findall(r"`([\w./-]+\.(?:py|svelte|ts))`", text)
    files = [name for name in named if not re.search("NAME|FAMILY|RESOURCE", name)]
    assert len(files) > 50
    missing = [
        name for name in files if not (ROOT / name).exists() and not [*SOURCE.glob(name), *SOURCE.rglob(f"*/{name}")]
    ]
    assert not missing


HELD = ("Card", "Contributions", "Evaluation", "Explanation", "Prediction", "Run", "Trace", "Verification")


def test_what_users_are_handed_can_be_named_in_annotations() -> None:
    import convscope as cs

    assert {*HELD} <= {*dir(cs)}
    assert all(isinstance(getattr(cs, name), type) for name in HELD)
    for function, name in ((cs.explain, "Explanation"), (cs.verify, "Verification"), (cs.evaluate, "Evaluation")):
        assert function.__annotations__["return"] in {getattr(cs, name), name}


def test_names_for_our_own_commands_resolve_and_are_not_listed() -> None:
    import convscope as cs

    assert not {*cs._INTERNAL} & {*cs._PUBLIC}
    assert not {*cs._INTERNAL} & {*dir(cs)}
    assert all(getattr(cs, name) is not None for name in cs._INTERNAL)
