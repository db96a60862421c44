"""Notes: what else there is to know of a pass, as its steps tell it. Knows steps; no torch."""

from collections.abc import Iterator, Sequence

from convscope.traces.step import Step

VALUES_ALONE = {"_linalg_svd": 1, "_linalg_eigh": 0}
"""Operations that PyTorch runs without vectors where nobody wants any, but never while it is watched; and which of
their results are the values."""


def notes_of(steps: Sequence[Step]) -> tuple[str, ...]:
    """Sentences about steps: where the chain to the image is broken, and where an untraced run may round otherwise."""
    return (*broken_chains(steps), *_rounded(steps))


def broken_chains(steps: Sequence[Step]) -> Iterator[str]:
    """Where numbers left PyTorch in the middle of the pass and came back."""
    for step in steps:
        for how in step.broken:
            yield f"the chain to the image is broken at {step.name}: {how}."


def _rounded(steps: Sequence[Step]) -> Iterator[str]:
    """PyTorch decides by whether it is watched; where vectors are read, both runs calculate them."""
    read = {(ref.id, ref.output) for step in steps for _, _, ref in step.refs() if ref.kind == "step"}
    for step in steps:
        values = VALUES_ALONE.get(step.op)
        vectors = {output for output, made in enumerate(step.results) if made.shape and output != values}
        if values is not None and not any((step.id, output) in read for output in vectors):
            yield (
                f"{step.name} was traced together with vectors that no step reads; where the model asks for the values "
                "alone, PyTorch computes them in another way when it is not traced, and the last bits may differ."
            )
