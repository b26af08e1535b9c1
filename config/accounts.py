"""Who the local servers run as, the folders and secrets that are theirs, and the programs they are."""

import os
import pwd
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from signal import Signals
from subprocess import DEVNULL, Popen

from config import children
from config.children import tell

# What a server sees of our environment: nothing. A PGPORT or a locale of the developer's is not meant for it.
SERVER_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class ServerError(Exception):
    """A server cannot be started; the text says why and what to do."""


def account_named(name_or_uid: str | int) -> pwd.struct_passwd | None:
    """Return the unprivileged account of that name or number, None if there is none."""
    try:
        entry = pwd.getpwuid(name_or_uid) if isinstance(name_or_uid, int) else pwd.getpwnam(name_or_uid)
    except KeyError:
        return None
    return entry if entry.pw_uid else None


@dataclass(frozen=True)
class Account:
    """Who the servers run as: we ourselves, or, when we are root, somebody without its powers."""

    name: str
    uid: int
    gid: int

    @classmethod
    def for_servers(cls, home: Path) -> "Account":
        """Return ourselves if we are an ordinary user; as root, who owns `home` already, or `postgres`, or `nobody`.

        PostgreSQL refuses to run as root, and Valkey has no need to.
        """
        if os.geteuid() != 0:
            return cls("ourselves", os.geteuid(), os.getegid())
        owner = home.stat().st_uid if home.exists() else 0
        entry = next(filter(None, map(account_named, [owner or "postgres", "nobody"])), None)
        if entry is None:
            raise ServerError("As root, the servers need an account `postgres` or `nobody` to run under; make one.")
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    def start(
        self, command: Sequence[str | Path], home: Path, log: Path, stop_signal: Signals, stdin: int = DEVNULL
    ) -> Popen[bytes]:
        """Start a program of this account's in `home`, what it says going to `log`."""
        user, group = (self.uid, self.gid) if self.uid != os.geteuid() else (None, None)
        with log.open("ab") as file:
            return children.start(
                command, stop_signal=stop_signal, cwd=home, env=SERVER_ENVIRONMENT, user=user, group=group,
                stdin=stdin, stdout=file, stderr=file,
            )  # fmt: skip

    def take(self, path: Path) -> None:
        """Make this account the owner of `path`."""
        if path.stat().st_uid != self.uid:
            os.chown(path, self.uid, self.gid)

    def make_private_folder(self, path: Path) -> Path:
        """Make a folder that only this account (and root) may enter."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.let_through_to(path)
        if os.geteuid() == 0:
            self.take(path)
        elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise ServerError(f"{path} belongs to another account. Run as that account, or choose another VAR_DIR.")
        return path

    def let_through_to(self, path: Path) -> None:
        """As root, let this account traverse to `path`: o+x on each folder above that lacks it, no more; say which."""
        if os.geteuid() != 0:
            return
        for folder in reversed(path.resolve().parents):
            status = folder.stat()
            if status.st_uid != self.uid and not status.st_mode & 0o001:
                tell(f"chmod o+x {folder}: the servers run as {self.name} and must be able to pass through")
                folder.chmod(status.st_mode & 0o7777 | 0o001)


def remembered_secret(path: Path) -> str:
    """Return the random secret kept in `path` (mode 600), making it the first time."""
    if not path.exists():
        unfinished = path.with_name(f"{path.name}.unfinished")
        unfinished.unlink(missing_ok=True)
        with open(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
        unfinished.rename(path)
    return path.read_text()


def package_folder(package: str) -> Path:
    """Return where an installed package lies, without importing it: we want its programs, not its Python."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed: `make install`, or pip install '.[local]'")
    return Path(spec.origin).parent
