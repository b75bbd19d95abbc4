"""Training: this project's loop against the usual way, a torchvision-style data set in a DataLoader, in one run.

Same network, images, batches, epochs and optimizer; the usual way normalises each image in Python and leaves all
settings at their defaults. Median of interleaved pairs with the range of their ratios.
"""

import statistics
import time

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from saliency_lib import data, models, training
from saliency_lib.runtime.seeds import seeded


class Usual(Dataset):
    """Images one by one, through torchvision's transforms."""

    def __init__(self, images: data.ImageData):
        self.pictures = [transforms.functional.to_pil_image(image) for image in images.images]
        self.labels = images.labels.tolist()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(images.mean, images.std)])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(self.pictures[i]), self.labels[i]


def usual(model, loader, epochs):
    """The common recipe with default settings."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=epochs * len(loader))
    model.train()
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()


@pytest.mark.parametrize(
    "dataset,name,n,epochs", [("digits", "convnet-w16-d2-max", 1437, 3), ("photodigits", "resnet_small", 1000, 1)]
)
def test_training_speed(dataset, name, n, epochs, capsys):
    train, times = data.load(dataset, "train", n=n), {"ours": [], "usual": []}
    for trial in range(6):
        for way in times:
            with seeded(trial):
                model = models.build(name, 10, train.shape[0], size=train.shape[1])
            started = time.perf_counter()
            if way == "ours":
                training.fit(model, train, training.Recipe(epochs=epochs, batch_size=64, lr=0.01, device="cpu"), trial)
            else:
                with seeded(trial):
                    usual(model, DataLoader(Usual(train), batch_size=64, shuffle=True), epochs)
            times[way].append(time.perf_counter() - started)
    ratios = [u / o for o, u in zip(*times.values())][1:]
    rate = epochs * n / statistics.median(times["ours"][1:])
    with capsys.disabled():
        print(
            f"\n{name} on {dataset}: {rate:,.0f} images/s, the usual way takes "
            f"{statistics.median(ratios):.2f} times as long [{min(ratios):.2f}, {max(ratios):.2f}]"
        )
