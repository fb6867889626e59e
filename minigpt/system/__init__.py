"""What differs by machine: files and locks, JSON, safetensors, devices and threads, the terminal, fonts, process pools.

Import from its modules, such as `minigpt.system.files`: some of them load PyTorch or rich, others must not.
"""

__all__ = [
    "console",
    "device",
    "files",
    "json_files",
    "lazy_imports",
    "plotting",
    "process_pool",
    "safetensors_files",
    "terminal",
]
