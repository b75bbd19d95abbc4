"""The one exception for data that is missing, truncated or corrupt."""


class DataError(Exception):
    """A data set cannot be read; the message names the file and the way to get it."""
