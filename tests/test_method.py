"""A new method is one function: registered, it is everywhere that methods are."""

import inspect
import pickle

import pytest
import torch
from conftest import batch, tiny_net

from saliency_lib import attribution, noisegrad, snr
from saliency_lib.attribution import METHODS, attribute, composition, method, smooth
from saliency_lib.book import plotting
from saliency_lib.runtime import code


@pytest.fixture
def toy():
    @method("Nobody 2024", forwards=2, backwards=0)
    def toy(model, images, seed, *, factor: float = 1.0):
        """What hiding the whole image costs, (n, 1, h, w), in logits.

        The same for all pixels.
        """

        def kernel(x, y, size):
            drop = factor * (model(x) - model(0 * x)).gather(1, y[:, None])
            return drop[..., None, None].expand(-1, 1, *x.shape[2:])

        return kernel

    yield toy
    del METHODS["toy"]


def drop(net, x, y):
    return (net(x) - net(0 * x)).gather(1, y[:, None]).detach().view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])


def test_a_registered_function_is_a_method_like_any_other(toy):
    net, (x, y) = tiny_net(), batch(5)
    assert METHODS["toy"].function is toy and list(METHODS)[-1] == "toy" and METHODS["toy"].signed
    maps = attribute("toy", net, x, y)
    torch.testing.assert_close(maps, drop(net, x, y))
    torch.testing.assert_close(attribute("toy", net, x, y, batch_size=2), maps)
    torch.testing.assert_close(toy(net, x, y, factor=2.0), 2 * maps)
    with pytest.raises(ValueError, match="training mode"):
        toy(net.train(), x, y)


def test_it_can_be_wrapped_and_measured_by_name(toy):
    nets, (x, y) = [tiny_net(seed) for seed in range(3)], batch(2)
    assert torch.equal(noisegrad.noisegrad("toy", 0.0)(nets[0], x, y), toy(nets[0], x, y))
    assert noisegrad.fusiongrad("toy", 0.1, 0.1, 2, 2)(nets[0], x, y).shape == (2, 1, 16, 16)
    assert not torch.equal(smooth(toy, 0.1, 3)(nets[0], x, y), toy(nets[0], x, y))
    by_hand = snr.Moments()
    for net in nets:
        by_hand.update(drop(net, x, y))
    measured = snr.measure("toy", nets, x, y).estimate(snr.plugin_mean)
    assert measured.value == pytest.approx(snr.snr(by_hand).mean().item(), rel=1e-4)


def test_it_has_the_signature_of_all_and_a_docstring_with_source_and_cost(toy):
    parameters = inspect.signature(toy).parameters
    assert list(parameters) == ["model", "images", "targets", "seed", "batch_size", "factor"]
    assert parameters["seed"].default == 0 and parameters["factor"].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(inspect.signature(inspect.unwrap(toy)).parameters) == ["model", "images", "seed", "factor"]
    first, second, rest = inspect.getdoc(toy).split("\n\n")
    assert "in logits" in first and "Nobody 2024. By default 2 forward and 0 backward" in second and "pixels" in rest
    with pytest.raises(TypeError, match="unexpected keyword argument 'fctor'"):
        toy(tiny_net(), *batch(1), fctor=1)


def test_it_has_a_colour_and_is_what_the_librarys_page_shows_of_a_file(toy):
    others = {plotting.METHOD_COLOURS[name] for name in METHODS if name != "toy"}
    assert plotting.METHOD_COLOURS["toy"] not in others
    assert inspect.isfunction(toy) and toy.__module__ == __name__ and toy.__doc__, "Sphinx takes its own functions"


def test_a_kernel_can_be_used_by_another_idea_and_gets_fewer_images_where_it_copies_them(toy):
    net, (x, y), sizes = tiny_net(), batch(5), []

    @method("Nobody 2024", forwards=6, backwards=0)
    def thrice(model, images, seed):
        once = toy.kernel(model, images, seed, factor=0.5)

        def kernel(x, y, size):
            sizes.append((len(x), size))
            return sum(once(x, y, size) for _ in range(3))

        return kernel, 3

    try:
        torch.testing.assert_close(thrice(net, x, y, batch_size=6), 1.5 * drop(net, x, y))
        assert sizes == [(2, 6), (2, 6), (1, 6)]
    finally:
        del METHODS["thrice"]


def test_a_method_made_of_others_is_registered_alike(toy):
    @composition("Nobody 2024", forwards=6, backwards=0, stochastic=True)
    def smooth_toy(*, n_samples: int = 3):
        """Mean of noisy copies, (n, 1, h, w)."""
        return smooth(toy, 0.1, n_samples)

    try:
        net, (x, y) = tiny_net(), batch(2)
        maps = attribute("smooth_toy", net, x, y, seed=5)
        assert torch.equal(maps, smooth(toy, 0.1, 3)(net, x, y, seed=5))
        assert list(inspect.signature(smooth_toy).parameters)[3:] == ["seed", "batch_size", "n_samples"]
    finally:
        del METHODS["smooth_toy"]


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_of_the_library_is_one_of_its_names_and_travels_by_it(name):
    function = METHODS[name].function
    assert getattr(attribution, name) is function and pickle.loads(pickle.dumps(function)) is function
    assert METHODS[name].citation in inspect.getdoc(function).replace("\n", " ")


def test_what_a_method_was_made_by_leaves_out_the_others(monkeypatch):
    """So that a new method, or another one's repair, does not throw away what is kept of this one."""
    code._read.cache_clear()
    read, real = [], inspect.getsource
    monkeypatch.setattr(code.inspect, "getsource", lambda thing: read.append(thing.__name__) or real(thing))
    assert code.of(attribution.guided_gradcam) != code.of(attribution.guided_backprop)
    assert {"gradcam", "in_batches", "composition"} < set(read)
    assert not {"lime", "input_gradient", "smooth"} & set(read)


def test_a_changed_method_changes_the_map_of_every_draw():
    net, (x, y) = tiny_net(), batch()
    changed = attribution.changed("input_gradient", torch.abs)
    plain = attribution.attribute("input_gradient", net, x, y)
    assert torch.equal(changed(net, x, y), plain.abs())
    shaken = noisegrad.noisegrad(changed, 0.3, 3)(net, x, y)
    assert (shaken >= noisegrad.noisegrad("input_gradient", 0.3, 3)(net, x, y).abs() - 1e-6).all()
