"""A budget of seconds, after which work stops where a later call goes on."""

import os
import time

SETTING = "SALIENCY_DEADLINE"  # of this process and of those that it starts: a time, in seconds since 1970


class OutOfTime(BaseException):
    """The budget is spent; what is done is kept. No ``Exception``, so that nobody takes it for a failure."""


def begin(seconds: float) -> None:
    """So long from now on."""
    os.environ[SETTING] = str(time.time() + seconds)


def passed() -> bool:
    """Whether there was a budget and it is spent."""
    return time.time() >= float(os.environ.get(SETTING) or "inf")


def check() -> None:
    """Raise :class:`OutOfTime` once the budget is spent."""
    if passed():
        raise OutOfTime
