"""The small sweep behind ``training.MAX_LR``: validation accuracy of each plain network at a few peak rates.

``python tests/benchmarks/learning_rates.py`` appends the rows that are missing to ``learning_rates.csv`` beside it.
Adam one-cycle, one seed a row: 6 epochs of 2,000 photodigits at 32 px; convnet: 15 epochs of all digits; vgg11, which
learns nothing of photodigits in so few steps: 8 epochs of all digits at 32 px. vgg16 and vgg19 take the rate of vgg11.
"""

import csv
from pathlib import Path

from saliency_lib import data, inference, models, training
from saliency_lib.runtime.seeds import seeded

TABLE = Path(__file__).with_name("learning_rates.csv")
RATES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
SETTINGS = {
    "convnet-w16-d2-max": ("digits", 8, 1437, 15),
    "lenet": ("photodigits", 32, 2000, 6),
    "cnn": ("photodigits", 32, 2000, 6),
    "mlp": ("photodigits", 32, 2000, 6),
    "vgg11": ("digits", 32, 1437, 8),
}


def row(network: str, rate: float) -> dict:
    """Train once and measure."""
    name, size, n, epochs = SETTINGS[network]
    train, val = data.load(name, "train", n=n, size=size), data.load(name, "val", size=size)
    with seeded(0):
        model = models.build(network, len(train.classes), train.shape[0], size=train.shape[1])
    try:
        training.fit(model, train, training.Recipe(epochs=epochs, batch_size=64, lr=rate, device="cpu"), seed=0)
        accuracy = round(inference.accuracy(model, val.inputs(), val.labels), 4)
    except FloatingPointError:
        accuracy = "diverged"
    return {
        "network": network,
        "dataset": name,
        "size": size,
        "n_train": n,
        "epochs": epochs,
        "rate": rate,
        "accuracy": accuracy,
    }


def main() -> None:
    """Fill in the rows that are missing."""
    done = list(csv.DictReader(TABLE.open())) if TABLE.exists() else []
    known = {(r["network"], float(r["rate"])) for r in done}
    for network in SETTINGS:
        for rate in RATES:
            if (network, rate) not in known:
                done.append(row(network, rate))
                with TABLE.open("w", newline="") as file:
                    writer = csv.DictWriter(file, done[0])
                    writer.writeheader()
                    writer.writerows(done)


if __name__ == "__main__":
    main()
