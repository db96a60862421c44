"""The first tutorial's hand calculation: why does the damaged plus come out as 0.3760?

python examples/by_hand.py
"""

import convscope as cs

model = cs.load_model("crosses", args={"published": True})
for name in ("damaged-plus", "damaged-x"):
    trace = cs.trace(model, cs.load_image(f"crosses:{name}", like=model))
    print(cs.explain(trace, "pool", (0, 0, 0)))
    print()
print(trace["conv1"].output.shape, "window sums; each has its own calculation:")
print(cs.explain(trace, "conv1", (0, 0, 1)))
