"""Sentences under a heading, and what an audit could not do."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import escape


class Sentences(list):
    """Sentences and their heading: HTML in a notebook and on its page, text elsewhere; nothing where there are none."""

    def __init__(self, heading: str, sentences: Iterable[str] = ()):
        super().__init__(sentences)
        self.heading = heading

    def __repr__(self) -> str:
        return "\n- ".join([self.heading, *self]) if self else ""

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in self)
        return f'<div class="sentences"><p><b>{escape(self.heading)}</b></p><ul>{items}</ul></div>' if self else ""


class Problems(Sentences):
    """What an audit could not do, a sentence each; and ``remarks`` on how it read what it was given."""

    def __init__(self) -> None:
        super().__init__("What could not be done")
        self.remarks: list[str] = []

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Go on after an exception in the block; ``what`` and its first line become a problem."""
        try:
            yield
        except Exception as error:  # a user's network may raise anything
            self.append(f"{what}: {(str(error).strip() or type(error).__name__).splitlines()[0]}")
