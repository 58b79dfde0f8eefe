"""What a refused XDP attachment means, in words: who is there, why it cannot be, what to do."""

from __future__ import annotations

import errno
import os

from ebpf.errors import AttachError, KernelError
from ebpf.kernel import netlink
from ebpf.kernel.privileges import NET_ADMIN, explain
from ebpf.kernel.rtnetlink import NetlinkError
from ebpf.links.xdp_state import XdpMode, attachments_of

_REPLACE_HINT = "replace=True (--replace) puts this one in its place; `ebpf xdp detach {}` takes that one off"

#: The kernel's own words (net/core/dev.c, dev_xdp_attach), and what they come to.
_REASONS = {
    "Native and generic XDP can't be active at the same time": (
        "native and generic XDP cannot be active on an interface at the same time"
    ),
    "Active program does not match expected": "another program is there by now, and was left alone",
    "Underlying driver does not support XDP in native mode": "its driver has no native XDP",
}


def attach_failure(interface: str, mode: XdpMode, error: OSError, *, doing: str = "attach to") -> KernelError:
    """The error for what the kernel answered; it names who is there if that is the reason."""
    code = error.errno or errno.EIO
    if code in (errno.EPERM, errno.EACCES):
        return explain(f"{doing} {interface}", (NET_ADMIN,), code)
    if code in (errno.EEXIST, errno.EBUSY):
        try:
            link = netlink.link(interface)
        except NetlinkError:
            link = None
        if link is not None and link.xdp:
            return occupied(link, doing, reason=_reason(error))
    reason = _reason(error) or os.strerror(code)
    if mode is XdpMode.OFFLOAD:
        return AttachError(
            f"cannot {doing} {interface} in offload mode: it is not a network card that runs BPF itself,"
            f" or the program was not loaded for it ({reason})",
            errno=code,
            hint="use native mode",
        )
    hint = f"lower the MTU of {interface} or of its peer, or use generic mode" if "MTU" in reason else None
    if code == errno.EOPNOTSUPP and mode is XdpMode.NATIVE:
        hint = hint or "use generic mode, which every device has"
    return AttachError(f"cannot {doing} {interface} in {mode} mode: {reason}", errno=code, hint=hint)


def _reason(error: OSError) -> str:
    text = getattr(error, "reason", "")
    return _REASONS.get(text, text)


def occupied(
    link: netlink.Link, doing: str, *, reason: str = "", hint: str | None = _REPLACE_HINT
) -> AttachError:
    """The error that says what is on an interface, and who holds it."""
    there = attachments_of(link) if link.xdp else []
    if not there:
        return AttachError(
            f"cannot {doing} {link.name}: no XDP program is attached there", errno=errno.ENOENT
        )
    names = " and ".join(map(str, there))
    because = f"{reason}; " if reason else ""
    return AttachError(
        f"cannot {doing} {link.name}: {because}attached there: XDP program {names}",
        errno=errno.EBUSY,
        hint=hint.format(link.name) if hint else None,
    )


def not_detached(interface: str, mode: XdpMode | None, program_id: int) -> AttachError:
    """The error for a detachment that the kernel called a success."""
    where = f" in {mode} mode" if mode else ""
    return AttachError(
        f"the kernel reported success, but program {program_id} is still attached to {interface}{where}",
        errno=errno.EBUSY,
    )


def no_interface(interface: str | int) -> AttachError:
    """The error for an interface that is not in this network namespace; it names those that are."""
    from difflib import get_close_matches

    names = [link.name for link in netlink.links()]
    close = get_close_matches(str(interface), names, n=1, cutoff=0.5)
    which = f"named {interface!r}" if isinstance(interface, str) else f"with index {interface}"
    return AttachError(
        f"there is no network interface {which} in this network namespace; there is: {', '.join(names)}",
        errno=errno.ENODEV,
        hint=f"did you mean {close[0]!r}?" if close else None,
    )
