"""Notes: remarks about a pass that follow from its steps. Knows steps; no torch."""

from collections.abc import Iterator, Sequence

from convscope.traces.step import Step

VALUES_ALONE = {"_linalg_svd": 1, "_linalg_eigh": 0}
"""Operations for which an untraced PyTorch skips the vectors if they are not used, and the index of the result that
holds the values."""


def notes_of(steps: Sequence[Step]) -> tuple[str, ...]:
    """Sentences on broken chains to the image, and on steps that an untraced run may round differently."""
    return (*broken_chains(steps), *_rounded(steps))


def broken_chains(steps: Sequence[Step]) -> Iterator[str]:
    """Sentences on numbers that left PyTorch during the pass and came back."""
    for step in steps:
        for how in step.broken:
            yield f"the chain to the image is broken at {step.name}: {how}."


def _rounded(steps: Sequence[Step]) -> Iterator[str]:
    """Sentences on steps whose vectors are unused: an untraced run may use another algorithm without them."""
    read = {(ref.id, ref.output) for step in steps for _, _, ref in step.refs() if ref.kind == "step"}
    for step in steps:
        values = VALUES_ALONE.get(step.op)
        vectors = {output for output, made in enumerate(step.results) if made.shape and output != values}
        if values is not None and not any((step.id, output) in read for output in vectors):
            yield (
                f"{step.name} was traced together with vectors that no step reads; if the model requests only the "
                "values, an untraced PyTorch computes them in another way, and the last bits may differ."
            )
