"""From a zoo to a picture: open, select, rebuild a network, compare twins, plot.

python -m zoo_builder --grid grids/digits.yaml --out weightzoo/digits-mlp
python examples/quickstart.py [ZOO] [PICTURE]
"""

# %% Open a zoo: a folder, or an id of the Hub. Only metadata is read.
import sys

import matplotlib.pyplot as plt
import numpy as np

from zoo_datasets import open_zoo

zoo = open_zoo(sys.argv[1] if len(sys.argv) > 1 else "weightzoo/digits-mlp")
print(zoo)

# %% Select snapshots by any column. Nothing is copied; weights are read when they are indexed.
trained = zoo.select(optimizer="adam", lr=3e-3).final()
print(trained.weights.shape, trained.weights[:3].mean(axis=1))

# %% A row is a network again: it gives the accuracy that is stored with it.
model_id = trained.models["model_id"][0].as_py()
print(trained.load_model(model_id))
print(trained.evaluate())

# %% Twins that differ in their training data alone: what does it do?
for effect in zoo.effect("subset", on="test_accuracy"):
    print(effect)

# %% And in weight space: how far do twins part, though they start from the same weights?
epochs = sorted(set(zoo.column("epoch").to_pylist()))
levels = zoo.axes["subset"]
base = "full" if "full" in levels else levels[0]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
for color, level in enumerate(levels):
    accuracy = [zoo.select(subset=level, epoch=e).column("test_accuracy").to_numpy().mean() for e in epochs]
    left.plot(epochs, accuracy, "o-", color=f"C{color}", label=level)
    if level == base:
        continue
    apart = []
    for epoch in epochs:
        at = zoo.select(epoch=epoch)
        place = {model: i for i, model in enumerate(at.column("model_id").to_pylist())}
        twins = zoo.pairs("subset", (base, level))
        a, b = (at.weights[[place[getattr(pair, side)] for pair in twins]] for side in "ab")  # (pairs, P) each
        apart.append(np.linalg.norm(a - b, axis=1).mean())
    right.plot(epochs, apart, "o-", color=f"C{color}", label=f"{base} and {level}")
left.set(xlabel="epoch", ylabel="mean test accuracy", title="Trained on …")
right.set(xlabel="epoch", ylabel="mean distance of weights", title="Twins part")
left.legend(frameon=False)
right.legend(frameon=False)
figure.savefig(sys.argv[2] if len(sys.argv) > 2 else "quickstart.png", dpi=120)
