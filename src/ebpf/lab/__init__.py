"""Network namespaces and veth pairs for trying things out."""
