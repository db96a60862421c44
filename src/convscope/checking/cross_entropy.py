"""Check of the cross-entropy of logits and its gradient: its cases, and common mistakes."""

from collections.abc import Callable

import numpy as np

from convscope.checking.mistakes import EXP_RAISES, LARGE, multiplied, wrong_sign
from convscope.checking.operation import (
    Case,
    CaseLimits,
    CheckedOperation,
    Form,
    Mistake,
    Results,
    Values,
    names,
    small_integers,
)
from convscope.reference import cross_entropy, softmax
from convscope.reference.attention import log_softmax
from convscope.reference.functional import cross_entropy_backward
from convscope.render.numbers import short
from convscope.typing import Array

PROBABILITIES = names("p probs probabilities y_hat yhat y_pred pred preds predictions al q")
ONE_HOT = names("y_true onehot one_hot t target targets y labels")


def _cross_entropy(values: Values) -> Results:
    logits, labels = values["x"], values["labels"]
    return {"loss": np.array(cross_entropy(logits, labels)), "dx": cross_entropy_backward(logits, labels)}


def _cases(_limits: CaseLimits) -> list[Case]:
    rng = np.random.default_rng(9)
    inputs: list[tuple[Array, list[int]]] = [
        (np.array([[1.0, 2, 0]]), [1]),
        (np.array([[2.0, 0], [1, 3]]), [0, 0]),
        (small_integers(rng, 3, 4), [3, 0, 2]),
        (rng.standard_normal((5, 3)), [0, 1, 2, 2, 1]),
    ]
    out = [Case({"x": x, "labels": np.array(labels)}) for x, labels in inputs]
    return [*out, Case({"x": np.array([[1000.0, 1001, 999], [-1000, -1001, -999]]), "labels": np.array([0, 1])})]


def _loss(
    loss_of: Callable[[Array, Array], object], *, share: Callable[[Array], Array] = softmax
) -> Callable[[Values], Results]:
    """A loss from probabilities and labels; its gradient stays that of the reference."""

    def instead(values: Values) -> Results:
        with np.errstate(all="ignore"):
            loss = loss_of(share(values["x"]), values["labels"])
        return {**_cross_entropy(values), "loss": np.asarray(loss)}

    return instead


def _loss_and_gradient(share: Callable[[Array], Array]) -> Callable[[Values], Results]:
    """Loss and gradient of other probabilities."""

    def instead(values: Values) -> Results:
        labels = values["labels"]
        with np.errstate(all="ignore"):
            p = share(values["x"])
            loss = -np.log(_picked(p, labels)).mean()
        return {"loss": np.asarray(loss), "dx": (p - np.eye(p.shape[1])[labels]) / len(p)}

    return instead


def _every_label(_results: Results, values: Values) -> Results:
    """The gradient of `dx[:, labels] -= 1`."""
    gradient = softmax(values["x"])
    gradient[:, values["labels"]] -= 1
    return {"dx": gradient / len(gradient)}


def _picked(p: Array, labels: Array) -> Array:
    return np.asarray(p[np.arange(len(labels)), labels])


def _guarded(small: float) -> Callable[[Values], Results]:
    return _loss(lambda p, y: -np.log(_picked(p, y) + small).mean())


def _late_one(_results: Results, values: Values) -> Results:
    p = softmax(values["x"])
    return {"dx": p / len(p) - np.eye(p.shape[1])[values["labels"]]}


def _binary(p: Array, labels: Array) -> float:
    hot = np.eye(p.shape[1])[labels]
    return float(-(hot * np.log(p) + (1 - hot) * np.log(1 - p)).sum() / len(p))


def _entropy_workings(values: Values, cell: tuple[int, ...]) -> list[str]:
    if cell:
        return ["softmax of the row, minus 1 at the label, divided by N"]
    logs = -_picked(log_softmax(values["x"]), values["labels"])
    terms = " + ".join(short(float(loss)) for loss in logs)
    return [f"−log(probability of the correct class): {terms}", *([f"÷ {len(logs)} images"] if len(logs) > 1 else [])]


def _squared_sum(p: Array, labels: Array) -> float:
    return float(((p - np.eye(p.shape[1])[labels]) ** 2).sum() / len(p))


def _naive(x: Array) -> Array:
    return np.asarray(np.exp(x) / np.exp(x).sum(-1, keepdims=True))


def _of_probabilities(cause: str, sentence: str, share: Callable[[Array], Array]) -> tuple[Mistake, ...]:
    """Other probabilities, in the loss and in the gradient, or in the loss alone."""
    return (
        Mistake(cause, sentence, instead=_loss_and_gradient(share)),
        Mistake(cause, sentence, instead=_loss(lambda p, y: -np.log(_picked(p, y)).mean(), share=share)),
    )


OVERFLOWS = "exponential overflows", "exp(x) is infinite for large x: subtract the row's maximum first."
EVERY_LABEL = (
    "labels of all rows in each row",
    "[:, labels] takes the labels of all images in every row: take one cell of each row, [np.arange(N), labels].",
)
SUM = "sum for mean", "The losses of the images are summed: divide by the number of images."

CROSS_ENTROPY = CheckedOperation(
    "cross_entropy",
    {
        "x": names("x logits scores input inputs z o output outputs") | PROBABILITIES,
        "labels": ONE_HOT | {"target", "label"},
    },
    {},
    lambda _values: {},
    frozenset(),
    ("loss", "dx"),
    _cases,
    _cross_entropy,
    (
        *_of_probabilities(
            "softmax applied twice",
            "Softmax is applied twice: cross-entropy takes logits and applies it once.",
            lambda x: softmax(softmax(x)),
        ),
        Mistake(*SUM, after=multiplied(lambda v: len(v["x"]), "loss", "dx")),
        Mistake(*SUM, after=multiplied(lambda v: len(v["x"]), "loss")),
        Mistake(
            "gradient not divided by the batch size",
            "dx is that of a sum: divide by the number of images.",
            after=multiplied(lambda v: len(v["x"]), "dx"),
        ),
        Mistake(
            "mean over the classes too",
            "The sum is divided by images times classes: divide by the number of images.",
            after=multiplied(lambda v: 1 / v["x"].shape[1], "loss"),
        ),
        *(
            Mistake(
                "small number in the logarithm",
                f"It calculates log(p + {small:g}), which keeps log(0) finite and changes the loss a little.",
                instead=_guarded(small),
                harmless=True,
            )
            for small in (1e-15, 1e-12, 1e-11, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5)
        ),
        Mistake(
            "labels not used",
            "The largest probability is taken: take that of the label.",
            instead=_loss(lambda p, _y: -np.log(p.max(1)).mean()),
        ),
        Mistake(
            "1 subtracted after the division",
            "Only the probabilities are divided by the number of images: subtract 1 at the label first, then divide.",
            after=_late_one,
        ),
        Mistake(
            *OVERFLOWS,
            instead=_loss(lambda p, y: -np.log(_picked(p, y)).mean(), share=_naive),
            except_on=LARGE,
        ),
        Mistake(*OVERFLOWS, instead=_loss_and_gradient(_naive), except_on=LARGE),
        EXP_RAISES,
        *(
            Mistake(
                "squared error",
                "Squared distances of the probabilities are averaged: the loss is the mean of -log(p) at the label.",
                instead=_loss(squared),
            )
            for squared in (lambda p, y: ((p - np.eye(p.shape[1])[y]) ** 2).mean(), _squared_sum)
        ),
        Mistake(
            "softmax forgotten",
            "The logarithm of the logits is taken: apply a softmax first.",
            instead=_loss(lambda p, y: -np.log(_picked(p, y)).mean(), share=lambda x: x),
        ),
        Mistake(
            "softmax and logarithm forgotten",
            "The mean of the logits is returned.",
            instead=_loss(lambda p, y: -_picked(p, y).mean(), share=lambda x: x),
        ),
        Mistake(
            "logarithm forgotten",
            "The mean of the probabilities is returned: take the logarithm of each.",
            instead=_loss(lambda p, y: -_picked(p, y).mean()),
        ),
        Mistake(
            "logarithm forgotten",
            "The mean of 1 - p is returned: the loss is the mean of -log(p).",
            instead=_loss(lambda p, y: (1 - _picked(p, y)).mean()),
        ),
        Mistake(
            "first label for all",
            "Every row is compared with the first label: row n has labels[n].",
            lambda v: v | {"labels": np.repeat(v["labels"][:1], len(v["labels"]), 0)},
        ),
        Mistake(
            "logarithm of the mean",
            "The probabilities are averaged before the logarithm: average the logarithms.",
            instead=_loss(lambda p, y: -np.log(_picked(p, y).mean())),
        ),
        Mistake("wrong sign", "The sign is missing: a loss is -log(p).", after=multiplied(lambda _v: -1, "loss")),
        Mistake(
            "logarithm to base 2",
            "Base 2 is used: take the natural logarithm.",
            after=multiplied(lambda _v: 1 / np.log(2), "loss"),
        ),
        Mistake(
            "logarithm to base 10",
            "Base 10 is used: take the natural logarithm.",
            after=multiplied(lambda _v: 1 / np.log(10), "loss"),
        ),
        Mistake(
            "binary cross-entropy",
            "The wrong classes count too, with log(1 - p): only the correct class counts.",
            instead=_loss(_binary),
        ),
        *_of_probabilities(
            "softmax over the whole batch",
            "The softmax runs over all images: apply it to each row separately.",
            lambda x: softmax(x.ravel()).reshape(x.shape),
        ),
        *_of_probabilities(
            "softmax along the wrong axis",
            "The softmax runs over the images: apply it over the classes.",
            lambda x: softmax(x, 0),
        ),
        Mistake(
            "logarithm of negative numbers",
            "Each logarithm is that of a negative number (nan): write -log(p), and subtract the 1 at the label for the "
            "gradient in a copy of p, or after the loss.",
            instead=_loss(lambda p, y: -np.log(_picked(p, y) - 1).mean()),
        ),
        *(
            Mistake(*EVERY_LABEL, instead=_loss(loss_of))
            for loss_of in (
                lambda p, y: -np.log(p[:, y]).mean(),
                lambda p, y: -np.log(p[:, y]).sum() / len(y),
                lambda p, y: -np.log(p[:, y]).sum(),
            )
        ),
        Mistake(*EVERY_LABEL, after=_every_label),
        Mistake(
            "only the first image",
            "Only the first image is used: average over all images.",
            instead=_loss(lambda p, y: -np.log(p[0, y[0]])),
        ),
        *(
            Mistake(
                "last image left out",
                "The loop ends one image early: add the losses of all images.",
                instead=_loss(loss_of),
            )
            for loss_of in (
                lambda p, y: -np.log(_picked(p, y))[:-1].sum() / len(y),
                lambda p, y: -np.log(_picked(p, y))[:-1].sum() / max(1, len(y) - 1),
            )
        ),
        Mistake(
            "maximum not subtracted from the label's logit",
            "The row's maximum is subtracted inside the logarithm of the sum only: add it there again, or subtract it "
            "from the label's logit too.",
            instead=lambda v: {
                **_cross_entropy(v),
                "loss": np.asarray((-_picked(log_softmax(v["x"]), v["labels"]) - v["x"].max(1)).mean()),
            },
        ),
        Mistake(
            "labels counted from one",
            "Label 1 is treated as class 0: labels start at 0.",
            instead=_loss(lambda p, y: -np.log(_picked(p, y - 1)).mean()),
        ),
        Mistake(
            "softmax is the gradient",
            "1 must be subtracted at the label.",
            after=lambda _r, v: {"dx": softmax(v["x"]) / len(v["x"])},
        ),
        wrong_sign("dx"),
    ),
    (
        Form("logits (N, classes), labels (N,)"),
        Form("logits (N, classes), labels one-hot", {"labels": lambda a: np.eye(a.max() + 1)[a]}, layout="one-hot"),
        Form("probabilities (N, classes), labels (N,)", {"x": softmax}, only_named=PROBABILITIES),
    ),
    workings=_entropy_workings,
)
