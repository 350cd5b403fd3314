"""The cluster's credential: one key and one certificate, which every member holds and demands.

Mutual TLS with a single self-signed certificate as its own trust anchor: whoever can show it is in the cluster, whoever
cannot is out. So host names are not checked (nodes come and go under any name), and nothing has to be signed.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import stat
from functools import cached_property
from pathlib import Path

from distributed_core.errors import CredentialError

ENVIRONMENT = "DISTRIBUTED_CORE_CREDENTIAL"
_VALID_DAYS = 3650
#: A key and a certificate are less than 2 kB.
FILE_BYTES_MAX = 1 << 20


class Credential:
    """A credential file that was read and found right."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def server_context(self) -> ssl.SSLContext:
        """Return the TLS context for the side that listens."""
        return self._server

    def client_context(self) -> ssl.SSLContext:
        """Return the TLS context for the side that connects."""
        return self._client

    @cached_property
    def _server(self) -> ssl.SSLContext:
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    @cached_property
    def _client(self) -> ssl.SSLContext:
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, side: ssl._SSLMethod) -> ssl.SSLContext:
        context = ssl.SSLContext(side)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        if side is ssl.PROTOCOL_TLS_SERVER:
            # Nobody resumes a session: tickets would only make each handshake a quarter dearer.
            context.num_tickets = 0
        try:
            # A key with a passphrase would ask for it on the terminal, and wait.
            context.load_cert_chain(self.path, password=_no_passphrase)
            context.load_verify_locations(self.path)
        except (OSError, ssl.SSLError) as error:
            text = f"the credential file {self.path} does not hold a private key and its certificate ({error})"
            raise CredentialError(f"{text}; copy it again from the scheduler's machine") from None
        return context

    def __repr__(self) -> str:
        return f"<Credential {self.path}>"


def _no_passphrase() -> bytes:
    return b""


def _expanded(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise CredentialError(f"there is no credential at {os.fspath(path)}: no such user has a home here") from None


def generate() -> bytes:
    """Return a new credential as PEM: an EC P-256 private key, and its self-signed certificate."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "distributed_core cluster")])
    # A clock that is behind must not make a new credential invalid.
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(subject_key, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def write_new(path: str | os.PathLike[str]) -> bool:
    """Write a new credential to `path`, readable by its owner only; return False if a file is there already.

    Raises
    ------
    CredentialError
        The folder cannot be written.
    """
    import tempfile

    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".credential-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(generate())
            try:
                # A link never replaces what is there: of two that race, both end with the first one's.
                os.link(temporary, target)
                return True
            except FileExistsError:
                return False
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    except OSError as error:
        raise CredentialError(f"the credential cannot be written to {target} ({error.strerror})") from None


def default_path() -> Path:
    """Return where the user's own credential is: the environment's word, or the configuration folder."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return _expanded(named)
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return _expanded(home) / "distributed_core" / "credential.pem"


def load(path: str | os.PathLike[str]) -> Credential:
    """Return the credential in a file.

    Raises
    ------
    CredentialError
        It is missing, broken, or readable by others than its owner.
    """
    target = _expanded(path)
    try:
        about = target.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        text = f"there is no credential at {target} ({reason}); copy it from the scheduler's machine"
        raise CredentialError(text) from None
    mode = about.st_mode
    if not stat.S_ISREG(mode) or about.st_size > FILE_BYTES_MAX:
        text = f"{target} is no credential file, but {_what(mode)}; copy it from the scheduler's machine"
        raise CredentialError(text)
    if stat.S_IMODE(mode) & 0o077:
        raise CredentialError(f"others can read the credential {target}; run: chmod 600 {target}")
    credential = Credential(target)
    credential.server_context()
    return credential


def load_or_create(path: str | os.PathLike[str] | None = None) -> Credential:
    """Return the credential at `path`, or the user's own, which is made on first use.

    Raises
    ------
    CredentialError
        It cannot be used, or not be made.
    """
    if path is not None:
        return load(path)
    target = default_path()
    if not os.path.exists(target):
        write_new(target)
    return load(target)


def _what(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "far too large" if stat.S_ISREG(mode) else "a device, a pipe or a socket"
