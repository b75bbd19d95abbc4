"""lucent, imported without the warnings of what it needs."""

import warnings

with warnings.catch_warnings():  # kornia compiles functions in a way that torch will drop
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    from lucent.optvis import objectives, param, render, transform

__all__ = ["objectives", "param", "render", "transform"]
