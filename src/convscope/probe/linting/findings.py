"""Findings: mistakes that were seen while a model ran, the evidence, and what a teacher would say. Uses no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from convscope.escaping import joined
from convscope.probe.support.report import ProbeReport
from convscope.rich_display import RichDisplay


@dataclass(frozen=True, slots=True)
class LintLesson:
    """A teacher's explanation of a kind of mistake."""

    title: str
    why: str
    remedy: str


LESSONS: Mapping[str, LintLesson] = {
    "softmax-before-cross-entropy": LintLesson(
        "a softmax before a cross-entropy that applies its own",
        "Cross-entropy turns logits into probabilities by itself. Given probabilities, it takes them for logits: "
        "they are between 0 and 1, so even a perfect answer gets at most e/(e + K - 1) after the second softmax. "
        "The loss cannot fall below ln(1 + (K - 1)/e), and its gradient is flattened where the answer is sure.",
        "Leave the softmax out while training and give the loss logits; apply it only to show probabilities.",
    ),
    "nll-without-log": LintLesson(
        "a negative log-likelihood of numbers that are not log-probabilities",
        "This loss only picks the number of the right class and turns its sign: it expects log-probabilities, whose "
        "exponentials add up to 1. Anything else it lets grow without end.",
        "End the network in log_softmax, or use cross-entropy on logits.",
    ),
    "loss-and-target-shapes": LintLesson(
        "outputs and targets of different shapes",
        "PyTorch stretches (N, 1) against (N,) to (N, N): every output is compared with every target of the batch, "
        "and "
        "the best answer is then the mean of the batch for all.",
        "Give both the same shape, such as output[:, 0] or target[:, None].",
    ),
    "outputs-and-classes": LintLesson(
        "another number of outputs than classes",
        "Each class needs an output of its own. One too few and a label points beyond the last; one too many stands "
        "for "
        "nothing, and is learned away at the cost of the others.",
        "Give the last layer as many outputs as the data have classes.",
    ),
    "step-fails": LintLesson(
        "the training step does not run",
        "The model cannot be called with a batch of these images, or what it gives and what the loss takes do not fit "
        "together.",
        "Read the sentence of the error; where a loss was reached, the shapes that do not fit follow it.",
    ),
    "missing-eval": LintLesson(
        "the model answers in training mode",
        "Dropout goes on switching units off at random, so the same image gets another answer each time.",
        "Call model.eval() before asking, and model.train() before training on.",
    ),
    "batch-norm-in-training-mode": LintLesson(
        "batch norm answers in training mode",
        "In training mode it normalizes by the mean and variance of the batch: an image's answer depends on which "
        "other images happen to be in its batch, and each answer moves the running statistics that evaluation will "
        "use.",
        "Call model.eval() before asking. A batch of one image cannot be normalized at all.",
    ),
    "missing-train": LintLesson(
        "the training step runs in evaluation mode",
        "Dropout is off and batch norm uses statistics that nothing updates, so the network is not trained as it "
        "was designed.",
        "Call model.train() at the start of each epoch.",
    ),
    "missing-normalization": LintLesson(
        "inputs that are not normalized",
        "Weights are initialized for inputs of about unit size. Inputs a hundred times as large saturate tanh and "
        "sigmoid, "
        "and make each step of the optimizer a hundred times too large for the first layer; a network trained on "
        "inputs of "
        "one scale does not know those of another.",
        "Divide pixels by 255, and prepare test images exactly as training images were.",
    ),
    "channel-order": LintLesson(
        "channels in another order than the model was trained on",
        "OpenCV reads blue, green, red; Pillow and the published weights red, green, blue. Nothing fails, colours "
        "are only wrong.",
        "Reverse the channels: image[::-1] of (C, H, W).",
    ),
    "channels-last": LintLesson(
        "images with their channels last",
        "A convolution takes (N, C, H, W). Files and plots have (H, W, C).",
        "Move the last axis to the front: images.permute(0, 3, 1, 2).",
    ),
    "dead-layer": LintLesson(
        "a layer that says the same of every image",
        "Behind it nothing can depend on the image. A ReLU whose inputs are all negative gives 0 and passes no "
        "gradient: it "
        "does not recover by itself.",
        "Use a smaller learning rate or another initialization, and normalize the inputs.",
    ),
    "saturated-layer": LintLesson(
        "a layer that is saturated everywhere",
        "At its flat ends tanh has a slope of almost 0: what comes from above hardly reaches the layers below.",
        "Normalize the inputs, or initialize smaller weights.",
    ),
    "unused-parameters": LintLesson(
        "parameters that the loss does not depend on",
        "They were made in __init__ and never used in forward, or what they give is thrown away. They are saved, "
        "counted and "
        "never trained.",
        "Use them in forward, remove them, or freeze them with requires_grad_(False).",
    ),
    "unregistered-layers": LintLesson(
        "layers in a plain list or dict",
        "A module sees layers that are its attributes, and not those in a Python list or dict. Their parameters are "
        "missing in model.parameters() and in the state dict: they are never trained, saved, or moved to a GPU.",
        "Put them into nn.ModuleList, nn.ModuleDict or nn.ParameterList.",
    ),
    "nothing-changes": LintLesson(
        "parameters that the training step does not change",
        "They have a gradient, and the optimizer does not move them: step() is missing, or the optimizer was given "
        "other "
        "parameters (a layer made after the optimizer).",
        "Make the optimizer from model.parameters() when the model is complete, and call step() after backward().",
    ),
    "missing-zero-grad": LintLesson(
        "gradients that add up over the steps",
        "backward() adds to a parameter's gradient, it does not replace it. Each step then moves by the sum of all "
        "gradients so far, those of former weights and images included: training swings past its aim, and the more so "
        "the longer it runs.",
        "Call optimizer.zero_grad() before each backward(), or after each optimizer.step().",
    ),
    "test-in-training": LintLesson(
        "test images that also occur in training",
        "What a network has been trained on it can know by heart. On those images the test does not measure what it "
        "says.",
        "Remove them from one side; of generated data, draw both sides from parts that share nothing.",
    ),
    "class-titles": LintLesson(
        "classes titled with other numbers than their own",
        "Class k is output k, counted from 0. A title that counts from 1 makes every figure and every table say the "
        "neighbouring class.",
        "Title a class with its name, or with the number that the label has.",
    ),
    "class-order": LintLesson(
        "classes in another order than the model's",
        "The model is right and its answers are read by the wrong list: folders are sorted by name, the training's "
        "list was not.",
        "Use the class names that were saved with the model.",
    ),
    "kernel-title": LintLesson(
        "a kernel whose title does not fit its response",
        "A vertical edge is a change along x: columns of different sign find it. A corner kernel must be silent on a "
        "straight edge. The title names something that the kernel does not single out.",
        "Name the kernel for the edges to which it responds.",
    ),
    "own-scales": LintLesson(
        "pictures that are each scaled by their own minimum and maximum",
        "The same grey stands for different numbers in different pictures: weak and strong maps look alike, and "
        "noise looks like a pattern.",
        "Give all of them one vmin and vmax and draw the scale: cs.plot.maps does.",
    ),
}
"""The checks by name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake that was seen."""

    check: str
    """A name of `LESSONS`."""
    where: str
    """The layer, parameter, kernel or data that it concerns."""
    evidence: str
    """The measurement in one sentence."""
    numbers: Mapping[str, object] = field(default_factory=dict)
    """The evidence as numbers, for a script."""

    @property
    def lesson(self) -> LintLesson:
        """A teacher's explanation of it."""
        return LESSONS[self.check]

    def __str__(self) -> str:
        return joined(self.lines())

    def lines(self) -> list[str]:
        """The observation, why it matters and the remedy, one line each."""
        return [
            f"✗ {self.check}: {self.lesson.title}" + (f" ({self.where})" if self.where else ""),
            f"  seen: {self.evidence}",
            f"  why:  {self.lesson.why}",
            f"  do:   {self.lesson.remedy}",
        ]

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "check": self.check,
            "where": self.where,
            "evidence": self.evidence,
            "numbers": dict(self.numbers),
            "why": self.lesson.why,
            "remedy": self.lesson.remedy,
        }


@dataclass(frozen=True, slots=True)
class Lint(RichDisplay):
    """The checks that ran and their findings."""

    subject: str
    findings: tuple[Finding, ...]
    looked_for: tuple[str, ...]
    """The checks that could be made."""
    skipped: Mapping[str, str]
    """The checks that could not be made, and why."""
    images: int = 0
    """The number of training images that the model ran on."""

    def __bool__(self) -> bool:
        """Whether anything was found."""
        return bool(self.findings)

    def __str__(self) -> str:
        return str(self.report())

    def report(self) -> ProbeReport:
        """The result as sentences and tables."""
        on = f" on {self.images:,} images" if self.images else ""
        count = len(self.findings)
        evidence = f"{count} mistake{'s' * (count != 1)}" if count else "no mistake"
        check_count = len(self.looked_for)
        head = f"{self.subject}: {evidence} found by {check_count} check{'s' * (check_count != 1)}{on}"
        parts = [[head], *(finding.lines() for finding in self.findings)]
        reasons = sorted(set(self.skipped.values()))
        for reason in reasons:
            names = ", ".join(name for name, skip_reason in self.skipped.items() if skip_reason == reason)
            parts.append([f"not looked for ({reason}): {names}"])
        return ProbeReport.of(*parts)

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "subject": self.subject,
            "images": self.images,
            "findings": [finding.to_json() for finding in self.findings],
            "looked_for": list(self.looked_for),
            "skipped": dict(self.skipped),
        }
