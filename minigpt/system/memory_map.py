"""Files mapped into memory: the system reads the parts that are used."""

import mmap
from pathlib import Path

from minigpt.system.files import explain_os_errors


def map_file(path: Path) -> mmap.mmap:
    """Map a file that will be read at random places.

    Without the advice, which Windows does not take, the system reads ahead: thirty times as much as a window of text.

    Args:
        path: a file that is not empty.

    Raises:
        FileError: the file cannot be opened or mapped.
    """
    with explain_os_errors("open", path), path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_RANDOM"):
        content.madvise(mmap.MADV_RANDOM)
    return content
