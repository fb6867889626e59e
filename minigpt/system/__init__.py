"""What differs by machine: files, locks, devices, threads, the terminal, fonts, process pools."""
