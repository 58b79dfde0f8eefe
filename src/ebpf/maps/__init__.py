"""Live maps, typed from BTF."""
