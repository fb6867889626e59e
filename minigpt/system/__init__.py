"""Code that depends on the machine: files, locks, signals, processes, CPUs, devices, memory, terminal, fonts.

What a system lacks has a fallback here, so that no other folder asks which system it runs on. Import from its modules,
such as `minigpt.system.files`: some of them load PyTorch or rich, others must not.
"""

__all__ = [
    "advice",
    "console",
    "cpus",
    "detached_process",
    "device",
    "files",
    "fonts",
    "fork_detector",
    "json_files",
    "lazy_imports",
    "memory_map",
    "plotting",
    "process_file",
    "process_memory",
    "process_pool",
    "pytorch_settings",
    "read_ahead",
    "safetensors_files",
    "signals",
    "standard_streams",
    "terminal",
    "text_encoding",
    "thread_map",
    "thread_waiting",
    "warn_once",
]
