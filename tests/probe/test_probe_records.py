"""Records of probes: each has its function, figure, page, tests and command; its settings are those of the function."""

import inspect
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import convscope as cs
from convscope.cli.probe import probe_app

ROOT = Path(__file__).parents[2]
PROBES = cs.probe.PROBES


def test_every_page_and_every_file_has_a_record() -> None:
    assert {path.stem for path in (ROOT / "docs/probes").glob("*.md")} - {"index"} == set(PROBES)
    files = {path.stem for path in (ROOT / "src/convscope/probe").glob("*.py")} - {"__init__", "public", "records"}
    files |= {"lint"}  # whose checks fill a folder
    assert files == {probe.function for probe in PROBES.values()}


@pytest.mark.parametrize("name", PROBES)
def test_a_record_is_complete(name: str) -> None:
    probe = PROBES[name]
    assert probe.name == name
    assert callable(getattr(cs.probe, probe.function))
    assert callable(getattr(cs.plot, probe.function))
    assert getattr(cs.plot, probe.function).__module__.startswith("convscope.plot.figures.")
    assert (ROOT / f"tests/probe/test_probe_{probe.function}.py").is_file()
    module, _, result = f"convscope.{probe.result}".rpartition(".")
    assert isinstance(getattr(import_module(module), result), type)
    page = " ".join((ROOT / f"docs/probes/{name}.md").read_text().replace("*", "").split())
    assert probe.caveats.rstrip(".") in page
    commands: Any = get_command(probe_app)
    assert name in commands.commands
    assert f"convscope probe {name}" in probe.help


@pytest.mark.parametrize("name", PROBES)
def test_a_setting_is_an_argument_of_the_function_with_its_default(name: str) -> None:
    probe = PROBES[name]
    parameters = inspect.signature(getattr(cs.probe, probe.function)).parameters
    names = [setting.name for setting in probe.settings]
    for setting in probe.settings:
        if name == "receptive-field" and setting.name == "step":  # without it, `receptive_fields` is asked
            continue
        default = parameters[setting.name].default
        assert default in {setting.default, None} if setting.several and not default else default == setting.default
        assert setting.within == "" or setting.within in names
    for field in probe.fields.values():
        assert field[1].only is None or field[1].only[0] in probe.fields


def test_fields_of_one_name_are_of_one_kind() -> None:
    kinds: dict[str, Any] = {}
    for probe in PROBES.values():
        for name, (setting, field) in probe.fields.items():
            assert kinds.setdefault(name, (field.kind, setting.choices)) == (field.kind, setting.choices), name


@pytest.mark.parametrize(
    "code",
    [
        "import convscope.probe.records",
        "import convscope as cs; cs.probe.PROBES",
        "from convscope.cli import main; import sys; sys.argv[1:] = ['probe', 'dead', '--help']; main()",
    ],
)
def test_records_and_their_commands_load_no_torch(code: str) -> None:
    program = f"try:\n    {code}\nexcept SystemExit: pass\nimport sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_file_that_is_imported_first_does_not_take_the_place_of_its_function() -> None:
    program = "import convscope as cs, convscope.probe.dead; print(cs.probe.dead, cs.probe.shift)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.startswith("<function dead at")
    assert "<function shift at" in done.stdout
