"""C to Spec, through any clang, with the headers that BPF programs include."""
