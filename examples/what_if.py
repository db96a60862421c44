"""What if this kernel were Sobel's? Trace a network as if, the model untouched, and see what changed where.

python examples/what_if.py
"""

import convscope as cs

model = cs.load_model("shapes-cnn", seed=0)
image = cs.load_image("shapes:test/3", like=model)
before = cs.trace(model, image)

kernels = before.parameters["conv1.weight"].copy()  # (8, 1, 3, 3)
kernels[0, 0] = cs.filters.FILTERS["sobel-x"].kernel
after = cs.trace(model, image, overrides={"conv1.weight": kernels})

print(cs.difference(before, after))
print(cs.explain(after, "conv1", (0, 10, 8)))
