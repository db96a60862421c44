"""LibreOffice without a window: recalculates workbooks, changes cells, reports numbers.

`Office` starts it with a profile of its own and talks to `office_script.py`, which the system's Python runs, because
Debian's `uno` module belongs to that one.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

PYTHON = Path("/usr/bin/python3")
SETTINGS = """<?xml version="1.0" encoding="UTF-8"?>
<oor:items xmlns:oor="http://openoffice.org/2001/registry">
<item oor:path="/org.openoffice.Office.Calc/Formula/Load">
<prop oor:name="OOXMLRecalcMode" oor:op="fuse"><value>0</value></prop></item>
</oor:items>
"""
"""Recalculate always."""


def missing() -> str:
    """What LibreOffice lacks here, as the reason for a skip; empty if it can be used."""
    if shutil.which("soffice") is None:
        return "soffice is not installed: apt-get install libreoffice-calc python3-uno"
    if not PYTHON.exists() or subprocess.run([PYTHON, "-c", "import uno"], capture_output=True, check=False).returncode:
        return f"{PYTHON} has no module uno: apt-get install python3-uno"
    return ""


class Office:
    """A LibreOffice of its own, ended at the end of the `with` block."""

    def __init__(self, folder: Path) -> None:
        profile = folder / "profile"
        (profile / "user").mkdir(parents=True)
        (profile / "user" / "registrymodifications.xcu").write_text(SETTINGS)
        pipe = f"convscope{time.monotonic_ns()}"
        self._office = subprocess.Popen(
            ["soffice", "--headless", "--norestore", "--nologo", f"-env:UserInstallation={profile.as_uri()}",
             f"--accept=pipe,name={pipe};urp;"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        script = Path(__file__).with_name("office_script.py")
        self._script = subprocess.Popen(
            [PYTHON, script, pipe], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._script.poll() is None:
            self.ask("end")
        self._script.wait(60)
        for stream in (self._script.stdin, self._script.stdout):
            assert stream is not None
            stream.close()
        self._office.wait(60)

    def ask(self, what: str, **arguments: Any) -> Any:
        """What the script answers."""
        assert self._script.stdin is not None
        assert self._script.stdout is not None
        self._script.stdin.write(json.dumps({"what": what, **arguments}) + "\n")
        self._script.stdin.flush()
        line = self._script.stdout.readline()
        assert line, "the script ended"
        return json.loads(line)

    def load(self, path: Path) -> float:
        """Open a workbook in the place of the last one; the processor time in seconds that LibreOffice needed."""
        before = processor_seconds(self._office.pid)
        self.ask("load", path=path.as_uri())
        return processor_seconds(self._office.pid) - before

    def values(self, sheet: str) -> list[list[float | str]]:
        """All values of a sheet, row by row."""
        answer: list[list[float | str]] = self.ask("values", sheet=sheet)
        return answer

    def set(self, sheet: str, cell: str, value: float) -> None:
        """Change a number."""
        self.ask("set", sheet=sheet, cell=cell, value=value)

    def precedents(self, sheet: str, cell: str) -> list[str]:
        """The ranges that *trace precedents* leads to, and the cell; LibreOffice leaves other sheets' names out."""
        answer: list[str] = self.ask("precedents", sheet=sheet, cell=cell)
        return answer


def processor_seconds(process: int) -> float:
    """The processor time that a process and its children have used, which other processes do not change."""
    folder = Path(f"/proc/{process}")
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    children = [child for path in folder.glob("task/*/children") for child in path.read_text().split()]
    used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used + sum(processor_seconds(int(child)) for child in children)
