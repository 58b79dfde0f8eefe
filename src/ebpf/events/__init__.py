"""Streams out of the kernel: the trace pipe; later ring and perf buffers."""
