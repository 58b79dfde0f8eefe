"""From Spec to the kernel: create maps, relocate, load programs, whole or nothing."""
