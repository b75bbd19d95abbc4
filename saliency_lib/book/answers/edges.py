"""Answers to the exercises of notebook 10: what is right, and what are slips."""

from saliency_lib.book.exercises import exercise, function, noise, number


@exercise("10-1")
def _(answer) -> str:
    slips = {
        "signs count: weights below zero take away": 11,
        "that is the weight in the middle; a pixel meets every weight of the kernel": 2,
        "that is how many outputs a pixel takes part in": 9,
        "the outputs there are constant, but how they change with a pixel is asked": 0,
    }
    return number(answer, 3, slips)


@exercise("10-2")
def _(answer) -> str:
    slips = {
        "that is what the paper prints; its sum is half of the difference": lambda x, r, w: (x - r) * w / 2,
        "its sum is right only for a reference of zero": lambda x, r, w: x * w,
        "half of it is missing, and the reference": lambda x, r, w: x * w / 2,
        "that is the gradient, which adds up to no difference": lambda x, r, w: w,
        "the other way round: from the reference to the picture": lambda x, r, w: (r - x) * w,
    }
    pictures = noise(5, 5), noise(5, 5, seed=1), noise(5, 5, seed=2)
    return function(answer, lambda x, reference, w: (x - reference) * w, [pictures], slips)


@exercise("10-3")
def _(answer) -> str:
    share = 0.5  # of black pixels: the ranks' variance between them and the others, over all of it
    slips = {
        "that is the share of black pixels; ranks also say which pixels are bright": share,
        "the bright pixels' ranks differ between the two draws": 1,
    }
    return number(answer, 3 * share / (1 + share + share**2), slips, within=0.02)
