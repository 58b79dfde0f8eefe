"""Network namespaces and veth pairs for trying things out."""

from ebpf.lab.host import Host, Interface, PingResult
from ebpf.lab.lab import Lab

__all__ = ["Host", "Interface", "Lab", "PingResult"]
