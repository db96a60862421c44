"""Does an MLP or a CNN answer the same when the picture moves? Several trainings of each, with their spread.

python examples/mlp_or_cnn.py [shapes | mnist] [trainings of each network] [epochs instead of the recipe's]
"""

import statistics
import sys
import tempfile
from pathlib import Path

import convscope as cs

NETWORKS = {
    "shapes": [("shapes-mlp", {}), ("shapes-mlp", {"hidden": 2}), ("shapes-cnn-1", {}), ("shapes-cnn", {})],
    "mnist": [("mlp-512", {}), ("mlp-512", {"hidden": 17}), ("simple-cnn", {})],
}
"""By data set: the tutorials' networks, and an MLP with about as many parameters as the CNN."""


def spread(shares: list[float]) -> str:
    """Median, least and most, in percent."""
    return f"{100 * statistics.median(shares):5.1f} ({100 * min(shares):.1f} to {100 * max(shares):.1f})"


name = sys.argv[1] if len(sys.argv) > 1 else "shapes"
seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
epochs = int(sys.argv[3]) if len(sys.argv) > 3 else None
test = cs.load_dataset(name, split="test").part(slice(0, 1000))
print(f"{name}: {len(test):,} test images, translations of up to 10 pixels in each direction (441); {seeds} trainings")
print("accuracy in %: median of the trainings (least to most)")
head = "".join(f"{text:<24}" for text in ("unmoved", "moved, still whole", "all moved", "same class, still whole"))
print(f"{'network':<14}{'parameters':>11}  {head}".rstrip())
with tempfile.TemporaryDirectory() as folder:
    for number, (model, args) in enumerate(NETWORKS[name]):
        found = []
        for seed in range(seeds):
            run = cs.train(
                name, model, model_args=args, seed=seed, epochs=epochs, out=Path(folder) / f"{number}-{seed}"
            )
            found.append(cs.probe.shift(run.model, test))
        first = found[0].models[0]
        columns = [
            spread([float(f.accuracy()[f.unmoved]) for f in found]),
            spread([f.while_whole(f.models[0].right_whole) for f in found]),
            spread([f.mean(f.models[0].right).share for f in found]),
            spread([f.while_whole(f.models[0].kept_whole) for f in found]),
        ]
        print(
            f"{model:<14}{first.parameters:>11,}  " + "".join(f"{column:<24}" for column in columns).rstrip(),
            flush=True,
        )
