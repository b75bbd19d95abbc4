"""A budget of seconds, after which work stops where a later call goes on."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

SETTING = "SALIENCY_DEADLINE"  # of this process and of those that it starts: a time, in seconds since 1970


class OutOfTime(BaseException):
    """The budget is spent; what is done is kept. No ``Exception``, so that nobody takes it for a failure."""


@contextmanager
def budget(seconds: float) -> Iterator[None]:
    """Work inside the block stops after so long, by :class:`OutOfTime`."""
    before = os.environ.get(SETTING, "")
    os.environ[SETTING] = str(min(time.time() + seconds, float(before or "inf")))
    try:
        yield
    finally:
        os.environ[SETTING] = before


def passed() -> bool:
    """Whether there was a budget and it is spent."""
    return time.time() >= float(os.environ.get(SETTING) or "inf")
