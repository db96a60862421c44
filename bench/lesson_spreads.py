"""How much do the claims of the lessons vary from training to training? `python bench/lesson_spreads.py [--minutes 4]`.

Each measurement of `lesson_measurements.py` is repeated for its seeds. What is measured is kept in the folder `--work`,
one file for each measurement and seed, so the study can be ended at any time and continued; when nothing is missing,
the result is written to src/convscope/lessons/spreads.json, which the lessons read. Exit status 3: not finished yet.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convscope as cs
from lesson_measurements import MEASUREMENTS, Measurement, Watcher
from measure import processor

RESULT = Path(__file__).parents[1] / "src" / "convscope" / "lessons" / "spreads.json"
UNFINISHED = 3


def environment() -> dict[str, Any]:
    """What the numbers depend on besides the conditions of each measurement."""
    return {
        "convscope": cs.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "device": "cpu",
        "date": time.strftime("%Y-%m-%d"),
    }


def measured(name: str, seed: int, work: Path, watch: Watcher) -> dict[str, Any]:
    """One measurement for one seed, read from the folder if it is there."""
    path = work / name / f"{seed}.json"
    if not path.exists():
        row = MEASUREMENTS[name].measure(seed, work / name / f"run-{seed}", watch)
        path.parent.mkdir(parents=True, exist_ok=True)
        cs.write_whole(path, json.dumps({**row, "environment": environment()}).encode())
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def joined(measurement: Measurement, rows: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """The rows of all seeds as one record: the condition, and a list of values, in the order of the seeds."""
    first = next(iter(rows.values()))
    if any(row["condition"] != first["condition"] for row in rows.values()):
        raise SystemExit(f"the seeds of {measurement.question!r} were measured under different conditions.")
    return {
        "question": measurement.question,
        "condition": first["condition"],
        "seeds": list(rows),
        "values": {key: [row["values"][key] for row in rows.values()] for key in first["values"]},
    }


def written(found: Mapping[str, Any]) -> str:
    """The file: numbers with six digits, one line for each quantity, so that a change can be read as a difference."""
    about = {"made_by": "python bench/lesson_spreads.py", "environment": environment()}
    parts = []
    for name, record in found.items():
        head = [f"{json.dumps(key)}: {json.dumps(record[key])}" for key in ("question", "condition", "seeds")]
        values = [f"{json.dumps(key)}: {json.dumps(rounded(value))}" for key, value in record["values"].items()]
        body = ",\n   ".join(values)
        parts.append(f"  {json.dumps(name)}: {{\n   " + ",\n   ".join([*head, f'"values": {{\n   {body}}}']) + "}")
    return json.dumps(about, indent=1)[:-2] + ',\n "measurements": {\n' + ",\n".join(parts) + "}\n}\n"


def rounded(value: Any) -> Any:
    """Floats with six significant digits, also within lists."""
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


class Deadline:
    """A watcher of trainings that interrupts them, resumably, when the time is up."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.end

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Ask the training to save and stop, as Ctrl-C does."""
        if self.over and event["event"] == "progress":
            signal.raise_signal(signal.SIGINT)


def study(names: list[str], work: Path, deadline: Deadline) -> dict[str, Any] | None:
    """All measurements, or None if the time is up before; every measured seed is printed."""
    todo = [(name, seed) for name in names for seed in MEASUREMENTS[name].seeds]
    rows: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in names}
    for number, (name, seed) in enumerate(todo, 1):
        new = not (work / name / f"{seed}.json").exists()
        if new and deadline.over:
            print(f"{number - 1} of {len(todo)} measured; continue with the same command.")
            return None
        start = time.monotonic()
        try:
            rows[name][seed] = measured(name, seed, work, deadline)
        except KeyboardInterrupt:
            print(f"interrupted in {name}, seed {seed}; continue with the same command.")
            return None
        if new:
            print(f"{number}/{len(todo)} {name}, seed {seed}: {time.monotonic() - start:.0f} s", flush=True)
    return {name: joined(MEASUREMENTS[name], found) for name, found in rows.items()}


def main() -> int:
    """Measure what is missing; write the result if it is complete."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="measurements; all by default, and only then the result is written")
    parser.add_argument("--work", type=Path, default=Path("build/lesson-spreads"), help="folder of partial results")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after this time")
    parser.add_argument("--out", type=Path, default=RESULT)
    wanted = parser.parse_args()
    found = study(wanted.names or list(MEASUREMENTS), wanted.work, Deadline(wanted.minutes))
    if found is None:
        return UNFINISHED
    if not wanted.names:
        cs.write_whole(wanted.out, written(found).encode())
        print(f"wrote {wanted.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
