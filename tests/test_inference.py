"""Logits and accuracy of any number of images."""

import pytest
import torch
from conftest import batch, tiny_net
from sklearn.metrics import accuracy_score

from saliency_lib import inference

IMAGES, LABELS = batch(9)


@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_logits_are_the_models_own_in_batches_of_any_size(batch_size):
    net = tiny_net()
    found = inference.logits(net, IMAGES, batch_size)
    torch.testing.assert_close(found, net(IMAGES).detach(), rtol=1e-4, atol=1e-5)
    assert not found.requires_grad and not any(module._forward_hooks for module in net.modules())


def test_log_odds_are_those_of_the_softmax_and_do_not_round():
    net = tiny_net()
    odds = inference.log_odds(net, IMAGES, LABELS)
    chances = net(IMAGES).detach().double().softmax(1).gather(1, LABELS[:, None])[:, 0]
    torch.testing.assert_close(odds.sigmoid(), chances, rtol=1e-4, atol=1e-5)
    certain = inference.log_odds(torch.nn.Flatten().eval(), torch.tensor([[[[200.0, 0.0]]]]), torch.tensor([0]))
    assert certain.item() == 200 and certain.sigmoid() == 1


def test_accuracy_is_scikit_learns():
    net = tiny_net()
    labels = torch.where(torch.arange(9) < 6, net(IMAGES).argmax(1), LABELS)
    expected = accuracy_score(labels, net(IMAGES).argmax(1))
    assert inference.accuracy(net, IMAGES, labels, batch_size=4) == pytest.approx(expected) and expected >= 6 / 9


def test_best_known_are_the_images_that_most_networks_get_right():
    nets = [tiny_net(seed=k) for k in range(3)]
    right = sum((net(IMAGES).argmax(1) == LABELS).long() for net in nets)
    found = inference.best_known(nets, IMAGES, LABELS, 5)
    assert found.tolist() == sorted(range(9), key=lambda place: (-right[place], place))[:5]


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        inference.accuracy(tiny_net().train(), IMAGES, LABELS)


@pytest.mark.parametrize("labels", [LABELS[:, None], LABELS[:1]])
def test_labels_are_one_for_each_image(labels):
    for function in (inference.accuracy, lambda net, *given: inference.best_known([net], *given, 2)):
        with pytest.raises(ValueError, match="one target each"):
            function(tiny_net(), IMAGES, labels)


def test_log_odds_of_a_class_that_is_not_there():
    x, _ = batch()
    with pytest.raises(ValueError, match="targets run from"):
        inference.log_odds(tiny_net(), x, torch.full((len(x),), 44))
