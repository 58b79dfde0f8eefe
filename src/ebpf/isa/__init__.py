"""The BPF instruction set, RFC 9669: model, encoding, text forms, and the one table of helpers."""
