"""Code that depends on the machine: files, locks, JSON, safetensors, CPUs, devices, threads, terminal, fonts.

Import from its modules, such as `minigpt.system.files`: some of them load PyTorch or rich, others must not.
"""

__all__ = [
    "advice",
    "console",
    "cpus",
    "device",
    "files",
    "fonts",
    "json_files",
    "lazy_imports",
    "plotting",
    "process_pool",
    "pytorch_settings",
    "safetensors_files",
    "terminal",
    "text_encoding",
    "thread_waiting",
    "warn_once",
]
