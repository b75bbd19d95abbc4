"""Training: this project's loop against the usual way, a torchvision-style data set in a DataLoader, in one run.

Same network, images, batches, epochs and optimizer; the usual way normalises each image in Python and leaves all
settings at their defaults. Then members in processes side by side, on cores or on one GPU, against one after the other.
Median of interleaved pairs with the range of their ratios.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from timing import compare, report, sized
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from saliency_lib import data, ensembles, models, training
from saliency_lib.ensembles.train import train_members
from saliency_lib.runtime import parallel
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
def test_training_speed(dataset, name, n, epochs):
    train, trials = data.load(dataset, "train", n=sized(n, 64)), iter(range(100))
    recipe = training.Recipe(epochs=epochs, batch_size=64, lr=0.01, device="cpu")

    def model(trial):
        with seeded(trial):
            return models.build(name, 10, train.shape[0], size=train.shape[1])

    def ours():
        training.fit(model(trial := next(trials)), train, recipe, trial)

    def theirs():
        with seeded(trial := next(trials)):
            usual(model(trial), DataLoader(Usual(train), batch_size=64, shuffle=True), epochs)

    found = compare(ours, theirs)
    rate = epochs * len(train) / found.ours
    report(f"training {name} on {dataset}, {rate:,.0f} images/s", "a DataLoader, all settings at their defaults", found)


@pytest.mark.parametrize("processes", (2, 4) if torch.cuda.is_available() else (2,))
def test_members_side_by_side(processes, monkeypatch, tmp_path):
    monkeypatch.setenv("SALIENCY_STORE", str(tmp_path))
    monkeypatch.setenv("SALIENCY_PROCESSES", str(processes))
    recipe = training.Recipe(epochs=1, batch_size=64, lr=0.01)
    network, size = ("resnet18", 128) if recipe.device == "cuda" else ("resnet_small", None)
    spec = ensembles.EnsembleSpec("photodigits", network, 4, recipe, n_train=sized(4000, 64), n_val=64, size=size)

    def trained(executor):
        assert len(list(parallel.run(partial(train_members, spec), [(k,) for k in range(4)], executor, recipe.device)))

    found = compare(partial(trained, "processes"), partial(trained, "serial"))
    report(f"training four {network}, {processes} processes, {recipe.device}", "one after the other", found)
