"""The study of `summary`: sizes and counts of other libraries' models: `python scripts/summary_study.py --out FILE`.

Each model is built with random weights (nothing is downloaded) and summarized; then its counts are compared with
`numel()` and with PyTorch's FlopCounterMode, and every calculated size with the recorded one. Each adds one line to the
file, and a second start goes on with what is missing. Many models share a process, which is started anew behind one
that ended it. torchvision's models and the smallest of each family of timm are read from the environment of
`make sweep`; `make summary-study` runs this there.
"""

import argparse
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweep import append, names, records

CHILD = Path(__file__).with_name("summary_model.py")
LIBRARIES = ("torchvision", "timm")
OUTCOMES = ("equal", "unequal", "refused", "failed", "out of time", "out of memory", "died", "not built")


def answers(chosen: list[str], seconds: float, gigabytes: float) -> Iterator[dict[str, Any]]:
    """A record of each model, in processes that are ended where one takes too long."""
    left = list(chosen)
    while left:
        command = [sys.executable, str(CHILD), "--gigabytes", str(gigabytes), *left]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8") as child:
            assert child.stdout is not None
            while left:
                late = threading.Event()

                def end(late: threading.Event = late, child: "subprocess.Popen[str]" = child) -> None:
                    late.set()
                    child.kill()

                timer = threading.Timer(seconds, end)
                timer.start()
                try:
                    line = child.stdout.readline()
                finally:
                    timer.cancel()
                name = left.pop(0)
                if not line.endswith("\n"):
                    yield {"model": name, "outcome": "out of time" if late.is_set() else "died"}
                    break
                yield json.loads(line)
            child.kill()


def line(record: dict[str, Any]) -> str:
    """A record in a line."""
    counts = (
        f"{record['parameters']:,} parameters, {record['multiply_adds']:,} multiply-adds" if "layers" in record else ""
    )
    return f"{record['model']}: {record['outcome']} {counts} {record.get('error', '')}".rstrip()


def table(kept: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What came of all, by library, and a line for each model that is not equal."""
    shown = [outcome for outcome in OUTCOMES if any(record["outcome"] == outcome for record in kept.values())]
    yield f"| library | models | {' | '.join(shown)} | layers | sizes by formula | fields | median seconds | most |"
    yield "|---|" + "---|" * (len(shown) + 6)
    for library in LIBRARIES:
        mine = [record for record in kept.values() if record["model"].startswith(f"{library}/")]
        if not mine:
            continue
        counts = Counter(record["outcome"] for record in mine)
        seconds = sorted(record["seconds"] for record in mine if "seconds" in record) or [0.0]
        layers, sizes, fields = (sum(record.get(key, 0) for record in mine) for key in ("layers", "sizes", "fields"))
        cells = " | ".join(str(counts[outcome]) for outcome in shown)
        yield (
            f"| {library} | {len(mine)} | {cells} | {layers:,} | {sizes:,} | {fields:,} | "
            f"{seconds[len(seconds) // 2]} | {seconds[-1]} |"
        )
    yield ""
    yield from (line(record) for record in kept.values() if record["outcome"] != "equal")


def main() -> int:
    """Parse, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True, help="the file of results, one JSON object a line")
    parser.add_argument("--only", nargs="*", default=[], help="models or libraries: torchvision, timm, zoo/ResNet")
    parser.add_argument("--seconds", type=float, default=300, help="limit of time per model")
    parser.add_argument("--gigabytes", type=float, default=8, help="limit of memory of the process")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, run nothing")
    options = parser.parse_args()
    status = 0
    if not options.table:
        whole = [library for library in LIBRARIES if library in options.only or not options.only]
        chosen = [name for name in options.only if "/" in name]
        chosen += [name for library in whole for name in names(library, options.out)]
        kept = records(options.out)
        left = [name for name in chosen if name not in kept]
        print(f"{len(left)} of {len(chosen)} models to do", flush=True)
        try:
            for index, record in enumerate(answers(left, options.seconds, options.gigabytes), 1):
                append(options.out, record)
                print(f"{index}/{len(left)} {line(record)}", flush=True)
        except KeyboardInterrupt:
            status = 130
    print("\n".join(["", *table(records(options.out))]))
    return status


if __name__ == "__main__":
    sys.exit(main())
