"""ELF object to Spec: sections, maps, variables, relocations."""
