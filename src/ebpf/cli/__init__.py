"""The command ebpf: a thin layer over the API."""
