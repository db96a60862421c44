"""What the five tutorials print and draw, item by item, each with the commands that do it in convscope.

The items were written down by a newcomer who repeated the tutorials. `scripts/tutorial_table.py` runs the rows, in
order and in one folder, and fails where the output lacks what a row must show.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One item of a tutorial."""

    tutorial: int
    item: str
    does: tuple[str, ...]
    """Commands (`convscope ...`) and Python."""
    shows: tuple[str, ...] = ()
    """What must be in the output."""
    draws: int = 0
    """The number of pictures."""


TITLES = (
    "Convolutional Neural Networks - Hello World",
    "Understanding Convolutional Networks with PyTorch",
    "Convolutional Neural Networks with PyTorch",
    "Convolutional Neural Network (by hand, then PyTorch)",
    "Introduction to Convolutional Neural Networks (shapes)",
)
HAND = "crosses crosses:damaged-plus --model-arg published=True --at pool:0,0,0 --depth 2"

CROSSES = (
    Row(1, "The two crosses and the damaged ones", ("convscope plot samples crosses --split all",), draws=1),
    Row(
        1,
        "The network: convolution, padding 1, mean",
        ("convscope trace crosses crosses:plus", "convscope summary crosses"),
        ("convolution 3x3, padding 1", "average pooling 3x3", "= 10"),
    ),
    Row(
        1,
        "The loss at every one of 5,000 draws",
        ("convscope train crosses --recipe tutorial",),
        ("5,000 random draws", "step  5,000", "e−"),
    ),
    Row(
        1,
        "The prediction for the damaged crosses; `train` ends with it too",
        ("convscope predict runs/crosses crosses:damaged-plus crosses:damaged-x",),
        ("nearest to class number 0", "nearest to class number 1"),
    ),
    Row(
        1,
        "The final kernel and bias, printed",
        ("convscope plot kernels runs/crosses",),
        ("conv1.weight (1x1x3x3)", "conv1.bias (1)"),
        draws=1,
    ),
    Row(1, "The calculation by hand", (f"convscope explain {HAND}",), ("−0.6951", "0.3760", "proved")),
    Row(
        1,
        "The published results, 0.3761 and 1.1388, and why they differ in the last digit",
        ("convscope predict crosses crosses:damaged-plus crosses:damaged-x --model-arg published=True",),
        ("rounded to four decimals", "0.3761", "1.1388", "0.3760", "1.1387"),
    ),
    Row(1, "The figure of the calculation: all nine windows", (f"convscope plot number {HAND}",), draws=1),
)

LAYERS = (
    Row(
        2,
        "The MLP 784-512-512-10 with dropout 0.2",
        (
            "convscope train mnist --model mlp-512 --epochs 1",
            "convscope trace runs/mlp-512 mnist:test/7",
            "convscope trace runs/mlp-512 mnist:train/0-3",
        ),
        ("669,706 parameters", "dropout 0.2, inactive in evaluation mode", "dropout, input × mask"),
    ),
    Row(2, "Neurons fully and locally connected", ("convscope plot connections",), draws=1),
    Row(
        2,
        "Why a CNN needs fewer parameters, and what it costs in accuracy",
        ("convscope train mnist --recipe tutorial", "convscope probe compare runs/mlp-512 runs/simple-cnn"),
        ("669,706", "parameters", "accuracy"),
    ),
    Row(2, "Samples of MNIST", ("convscope plot samples mnist",), draws=1),
    Row(2, "A digit as the grid of its pixel values", ("convscope plot pixels mnist:test/7",), draws=1),
    Row(
        2,
        "Grey and colour images: one channel, or red, green and blue, 0 to 255",
        ("convscope plot pixels photo.jpg",),
        draws=1,
    ),
    Row(2, "Sobel on a photo", ("convscope filter photo.jpg --kernel sobel-x",), ("response: 4",), draws=1),
    Row(2, "Your own filter", ("convscope filter photo.jpg --kernel '-1 1; -1 1'",), draws=1),
    Row(
        2,
        "How convolution, max pooling, mean and linear layer calculate a number",
        (
            "convscope plot number runs/simple-cnn mnist:test/7 --at conv1:0,10,10",
            "convscope plot number runs/simple-cnn mnist:test/7 --at pool:2,5,5",
            "convscope plot number runs/crosses crosses:damaged-plus --at pool:0,0,0",
            "convscope plot number runs/simple-cnn mnist:test/7 --at fc1:7",
        ),
        draws=4,
    ),
    Row(
        2,
        "A classifier made of three kinds of layers",
        ("convscope plot network runs/simple-cnn mnist:test/7",),
        draws=1,
    ),
    Row(2, "The four stripe filters", ("convscope plot kernels stripes",), draws=1),
    Row(2, "The maps after convolution, ReLU and pooling", ("convscope plot maps stripes photo.jpg",), draws=1),
)

CONVNET = (
    Row(3, "An MLP as connected neurons", ("convscope plot connections --size 4 --kernel 2",), draws=1),
    Row(
        3,
        "The loss every 500 batches",
        ("convscope train mnist --model mnist-convnet --recipe tutorial --epochs 1",),
        ("step    500", "mean of 500 steps"),
    ),
    Row(
        3,
        "The ConvNet with its layers, kernels and probabilities",
        ("convscope plot network runs/mnist-convnet mnist:test/7",),
        draws=1,
    ),
    Row(
        3,
        "Its shapes: 5x24x24, 64, 32, 10",
        ("convscope trace mnist-convnet mnist:test/0",),
        ("1x5x24x24", "1x64", "1x32", "1x10", "conv1.weight 10x1x3x3"),
    ),
    Row(
        3,
        'The claim "translation invariant, regardless of size and position", measured',
        (
            "convscope probe shift mnist runs/mlp-512 runs/mnist-convnet",
            "convscope probe shift mnist runs/mlp-512 runs/mnist-convnet --kind scale",
        ),
        ("the answer (invariance) stays for", "times as large"),
    ),
)

BY_HAND = (
    Row(
        4,
        "The convolution of the published arrays in NumPy",
        (
            "convscope filter '1 2 0 1; 0 1 3 1; 2 2 1 0; 1 0 1 3' --kernel '1 0; 0 1'",
            "cs.reference.conv2d(cs.reference.PUBLISHED_IMAGE, cs.reference.PUBLISHED_KERNEL)",
        ),
        ("2  5  1", "2  3  4", "[2., 5., 1.]"),
        draws=1,
    ),
    Row(
        4,
        "ReLU and max pooling: 5",
        (
            "maps = cs.reference.conv2d(cs.reference.PUBLISHED_IMAGE, cs.reference.PUBLISHED_KERNEL)\n"
            "cs.reference.max_pool2d(cs.reference.relu(maps), 2)",
        ),
        ("[[5.]]",),
    ),
    Row(4, "MNIST is loaded", ("convscope datasets", 'cs.load_dataset("mnist", split="test")'), ("mnist",)),
    Row(
        4,
        "SimpleCNN: the logits of 64 images, (64, 10)",
        ('trace = cs.trace("runs/simple-cnn", "mnist:test/0-63")\nprint(trace)\ntrace.output.shape',),
        ("(64, 10)", "64x8x26x26"),
    ),
    Row(
        4,
        "Trained by Adam 1e-3 with batches of 64",
        ("convscope train mnist --recipe tutorial --out runs/by-adam", "convscope evaluate runs/by-adam"),
        ("batch 64, adam, lr 0.001", "accuracy"),
    ),
    Row(
        4,
        "The device is chosen and printed",
        ("convscope train shapes --epochs 1 --device auto --out runs/device",),
        (", on ",),
    ),
    Row(
        4,
        'The claim "vanishing gradients are prevented by shared weights", measured',
        (
            "convscope probe gradients mlp-512 mnist",
            "convscope probe gradients simple-cnn mnist",
            "from torch import nn\n\n"
            "deep = [layer for _ in range(8) for layer in (nn.Conv2d(1, 1, 3, padding=1), nn.Sigmoid())]\n"
            'print(cs.probe.gradients(nn.Sequential(*deep, nn.Flatten(), nn.Linear(784, 10)), "mnist"))',
        ),
        ("gradient at outputs", "fc1", "conv1", "does not vanish", "the gradient vanishes: at layer 0"),
    ),
)

SHAPES = (
    Row(5, "Five samples of each shape", ("convscope plot samples shapes --per-class 5",), draws=1),
    Row(
        5,
        "Flattened into an MLP of 15,742 parameters; its accuracy",
        (
            "convscope train shapes --model shapes-mlp --recipe tutorial",
            "convscope evaluate runs/shapes-mlp",
        ),
        ("15,742 parameters", "accuracy"),
    ),
    Row(
        5,
        "A convolution in NumPy on the 10x10 square",
        (
            'square = cs.load_image("square:train/0")\n'
            'kernel = cs.filters.FILTERS["edge"].kernel\n'
            'cs.reference.conv2d(square, kernel[None, None], padding="same")[0].astype(int)',
        ),
        ("5",),
    ),
    Row(
        5,
        "The four kernels on the square, the tutorial's own where ours differ",
        tuple(
            f"convscope filter square:train/0 --kernel {name} --same"
            for name in ("edge", "vertical", "tutorial-horizontal", "tutorial-corner")
        ),
        ("the negative of `horizontal`", "corners twice as strongly"),
        draws=4,
    ),
    Row(
        5,
        "The titles that do not fit their kernels",
        (
            "convscope probe lint --kernel 'Horizontal Edge=-1 0 1; -1 0 1; -1 0 1' "
            "--kernel 'Corners=0 -1 0; -1 4 -1; 0 -1 0'",
        ),
        ("Horizontal Edge", "finds vertical edges", "Corners"),
    ),
    Row(
        5,
        "The CNN of 40 parameters: 30 epochs, its accuracy, and the floor of its loss",
        (
            "convscope train shapes --model shapes-cnn-1 --recipe tutorial",
            "convscope probe lint runs/shapes-cnn-1",
        ),
        ("40 parameters", "accuracy", "0.3133"),
    ),
    Row(
        5,
        "Its learned kernels, printed",
        ("convscope plot kernels runs/shapes-cnn-1", "convscope plot kernels runs/shapes-cnn-1 --layer conv2"),
        ("conv1.weight", "conv2.weight"),
        draws=2,
    ),
    Row(
        5,
        "The maps layer by layer, of a square and a circle",
        (
            "convscope plot maps runs/shapes-cnn-1 shapes:train/0",
            "convscope plot maps runs/shapes-cnn-1 shapes:train/1",
        ),
        draws=2,
    ),
    Row(
        5,
        "Twelve images, the classes side by side",
        ("convscope plot maps runs/shapes-cnn-1 --step pool2 --dataset shapes",),
        draws=1,
    ),
    Row(
        5,
        "The shapes of weights for 1-1, 1-n, n-1 and n-m channels",
        (
            "convscope trace runs/shapes-cnn-1 shapes:train/0",
            "convscope trace shapes-cnn shapes:train/0",
            "from torch import nn\n\nprint(cs.trace(nn.Conv2d(3, 1, 3, padding=1), np.zeros((3, 28, 28), np.float32)))",
        ),
        ("conv1.weight 1x1x3x3", "conv1.weight 8x1x3x3", "conv2.weight 16x8x3x3", "weight 1x3x3x3"),
    ),
    Row(
        5,
        'The size of the result for kernel 7, padding 3 and "same", as arithmetic',
        (
            "from torch import nn\n\n"
            "print(cs.summary(nn.Conv2d(1, 5, 7), size=(1, 28, 28)))\n"
            "print(cs.summary(nn.Conv2d(1, 5, 7, padding=3), size=(1, 28, 28)))\n"
            'print(cs.summary(nn.Conv2d(1, 5, 7, padding="same"), size=(1, 28, 28)))',
        ),
        ("= 22", "= 28"),
    ),
    Row(
        5,
        "The CNN with 8 and 16 kernels",
        ("convscope train shapes --recipe tutorial", "convscope evaluate runs/shapes-cnn"),
        ("parameters) on shapes", "accuracy"),
    ),
    Row(5, "Samples of the coloured shapes", ("convscope plot samples color-shapes",), draws=1),
    Row(
        5,
        "The colour network: 132 parameters, 20 epochs",
        ("convscope train color-shapes --recipe tutorial",),
        ("132 parameters", "test accuracy"),
    ),
    Row(5, "The sum of each kernel per colour", ("convscope plot kernels runs/color-cnn",), ("red", "sum"), draws=1),
    Row(
        5,
        "Yellow squares, red squares, yellow circles: do the borders of red objects vanish?",
        (
            "convscope plot maps runs/color-cnn --step conv1 --dataset color-shapes",
            "convscope plot maps runs/color-cnn color-shapes:test/199 --step conv1",
        ),
        draws=2,
    ),
)

ROWS = (*CROSSES, *LAYERS, *CONVNET, *BY_HAND, *SHAPES)
