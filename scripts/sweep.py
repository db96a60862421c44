"""The sweep: architectures of other libraries, traced and verified: `python scripts/sweep.py --out sweep.jsonl`.

Each model runs in a process of its own, with random weights (nothing is downloaded), within a limit of time and memory.
Each adds one line to the file: parameters, seconds, peak memory, what was found. A second start goes on with what is
missing; Ctrl-C ends it without loss. The table follows at the end, or alone with `--table`.

The zoo are 60 architectures of transformers, MONAI and PyTorch; torchvision's classification models and the smallest
model of each family of timm join where these libraries can be imported (`make sweep` installs them beside .venv).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("sweep_model.py")
LIBRARIES = ("zoo", "torchvision", "timm")
OUTCOMES = (
    "proved",
    "partly proved",
    "mismatch",
    "refused",
    "traceback",
    "out of time",
    "out of memory",
    "died",
    "not built",
)
UNFINISHED = {"refused", "traceback", "out of time", "out of memory", "died", "not built"}
GIGABYTE = 10**9


def records(file: Path) -> dict[str, dict[str, Any]]:
    """The lines of a former run by model, the last of each; a line that was cut off is left out."""
    kept = dict[str, dict[str, Any]]()
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []:
        try:
            record = json.loads(line)
            kept[record["model"]] = record
        except (ValueError, TypeError, KeyError):
            continue
    return kept


def append(file: Path, record: dict[str, Any]) -> None:
    """Add one line, safely behind one that was cut off."""
    with file.open("ab+") as stream:
        cut = stream.tell() > 0 and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n"
        stream.write(b"\n" * cut + json.dumps(record).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def names(library: str, file: Path) -> list[str]:
    """The models of a library; kept beside the results, as counting the parameters of all of timm takes minutes."""
    kept = file.with_suffix(f".{library}.json")
    if not kept.exists():
        done = subprocess.run(
            [sys.executable, str(CHILD), "--list", library], capture_output=True, encoding="utf-8", check=False
        )
        if done.returncode:
            print(f"{library}: left out, {(done.stderr.strip().splitlines() or ['it cannot be imported'])[-1]}")
            return []
        kept.write_text(done.stdout, encoding="utf-8")
    listed: list[str] = json.loads(kept.read_text(encoding="utf-8"))
    return listed


def resident(pid: int) -> tuple[int, int]:
    """Bytes of memory that a process holds now, and at most so far; zeros where it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        return int(lines["VmRSS"].split()[0]) * 1024, int(lines["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        return 0, 0


def run(name: str, seconds: float, memory: float) -> dict[str, Any]:
    """One model in a process of its own."""
    start, peak, stopped = time.monotonic(), 0, ""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen([sys.executable, str(CHILD), name], stdout=out, stderr=err)
        try:
            while child.poll() is None and not stopped:
                time.sleep(0.2)
                now, most = resident(child.pid)
                peak = max(peak, most)
                if now > memory * GIGABYTE:
                    stopped = "out of memory"
                elif time.monotonic() - start > seconds:
                    stopped = "out of time"
        finally:  # also after Ctrl-C
            child.kill()
            child.wait()
        out.seek(0)
        err.seek(0)
        text, remarks = out.read().strip(), err.read().strip().splitlines()
    record: dict[str, Any] = {
        "model": name,
        "seconds": round(time.monotonic() - start, 1),
        "peak_gb": round(peak / 1e9, 2),
    }
    if stopped:
        return record | {"outcome": stopped}
    if child.returncode or not text:
        return record | {"outcome": "died", "error": f"status {child.returncode}: {(remarks or [''])[-1]}"[:400]}
    answer: dict[str, Any] = json.loads(text.splitlines()[-1])
    return record | answer


def line(record: dict[str, Any]) -> str:
    """A record in a line."""
    share = f"{record['proved']:.2%}" if "proved" in record else ""
    detail = record.get("error", "")
    for key in ("mismatches", "unresolved", "unsupported", "unexplained", "reasons"):
        detail = detail or "; ".join((record.get(key) or [])[:3])
    timing = f"{record.get('trace_s', 0):.1f} s, {record.get('verify_s', 0):.1f} s, {record['peak_gb']:.1f} GB"
    bits = "" if record.get("same_bits", True) else " OTHER BITS"
    return f"{record['model']}: {record['outcome']} {share}{bits} ({timing}) {detail}".rstrip()


def table(kept: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What came of all, by library, and a line for each model that is not proved."""
    shown = [outcome for outcome in OUTCOMES if any(record["outcome"] == outcome for record in kept.values())]
    yield f"| library | models | {' | '.join(shown)} | median trace | median verify | most memory |"
    yield "|---|" + "---|" * (len(shown) + 4)
    for library in LIBRARIES:
        mine = [record for record in kept.values() if record["model"].startswith(f"{library}/")]
        if not mine:
            continue
        counts = Counter(record["outcome"] for record in mine)
        traced, verified = (sorted(r[key] for r in mine if key in r) or [0.0] for key in ("trace_s", "verify_s"))
        times = f"{traced[len(traced) // 2]} s | {verified[len(verified) // 2]} s"
        cells = " | ".join(str(counts[outcome]) for outcome in shown)
        yield f"| {library} | {len(mine)} | {cells} | {times} | {max(r['peak_gb'] for r in mine)} GB |"
    yield ""
    yield from (
        line(record) for record in kept.values() if record["outcome"] != "proved" or not record.get("same_bits")
    )


def sweep(file: Path, chosen: list[str], seconds: float, memory: float, retry: bool) -> None:
    """Run what is missing."""
    kept = records(file)
    left = [name for name in chosen if name not in kept or (retry and kept[name]["outcome"] in UNFINISHED)]
    print(f"{len(left)} of {len(chosen)} models to do", flush=True)
    for index, name in enumerate(left, 1):
        record = run(name, seconds, memory)
        append(file, record)
        print(f"{index}/{len(left)} {line(record)}", flush=True)


def main() -> int:
    """Parse, sweep, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True, help="the file of results, one JSON object a line")
    parser.add_argument("--only", nargs="*", default=[], help="models or libraries: zoo, torchvision, timm, zoo/ResNet")
    parser.add_argument("--seconds", type=float, default=300, help="limit of time per model")
    parser.add_argument("--gigabytes", type=float, default=8, help="limit of memory per model")
    parser.add_argument("--retry", action="store_true", help="try again what ended without a report")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, run nothing")
    options = parser.parse_args()
    status = 0
    if not options.table:
        named = [name for name in options.only if "/" in name]
        whole = [name for name in LIBRARIES if name in options.only or not options.only]
        try:
            chosen = [*named, *(name for library in whole for name in names(library, options.out))]
            sweep(options.out, chosen, options.seconds, options.gigabytes, options.retry)
        except KeyboardInterrupt:
            status = 130
    print("\n".join(["", *table(records(options.out))]))
    return status


if __name__ == "__main__":
    sys.exit(main())
