"""On which kind of filesystem does a file lie? SQLite's locks do not hold on those of a network."""

from pathlib import Path

_NETWORK_KINDS = frozenset(
    (
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "9p",
        "ceph",
        "glusterfs",
        "lustre",
        "ocfs2",
        "gfs2",
        "beegfs",
    )
)
_MOUNTS = Path("/proc/self/mounts")


def network_filesystem(file: Path, mounts: Path = _MOUNTS) -> str:
    """Return the kind of network filesystem that `file`, which need not exist, lies on; empty if it is none, or nobody can
    tell (not Linux)."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    folder = file.resolve().parent
    kinds = {Path(_unescape(fields[1])): fields[2] for line in lines if len(fields := line.split()) > 2}
    for place in (folder, *folder.parents):
        if place in kinds:
            kind = kinds[place]
            return kind if kind in _NETWORK_KINDS or kind.startswith("fuse.sshfs") else ""
    return ""


def _unescape(field: str) -> str:
    """A blank is written as \\040, and so on."""
    return field.encode().decode("unicode_escape") if "\\" in field else field
