"""BTF, the type format of BPF: parse, build, print as C, lay out, and code values."""
