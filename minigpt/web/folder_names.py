"""The names that a request may give to a new run or to a text. Such a name becomes the name of a file or folder."""

import re

from minigpt.web.api_errors import ApiError

PLAYGROUND = "playground"  # a folder among the runs: what the playground itself keeps
MAX_LENGTH = 80  # characters
_NAME = re.compile(r"\w(?:[\w .-]*[\w-])?")  # letters and digits of all scripts; no separator of paths, no colon


def check_folder_name(name: str, param: str) -> str:
    """Return a name if a file or folder may have it.

    Args:
        name: the name that a request gives.
        param: the request's field, for the error.

    Raises:
        ApiError: the name has other characters, or it leads elsewhere.
    """
    if len(name) > MAX_LENGTH or not _NAME.fullmatch(name):
        raise ApiError(
            400,
            f"{param} must have 1 to {MAX_LENGTH} letters, digits, spaces, '-', '_' or '.', and begin with a letter or "
            f"a digit, not {name[:100]!r}",
            param,
        )
    if name.casefold() == PLAYGROUND:
        raise ApiError(
            400, f"{param} cannot be {name!r}, the folder of the playground's own files: choose another", param
        )
    return name
