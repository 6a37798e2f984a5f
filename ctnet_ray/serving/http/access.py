"""The access token: where it comes from, and whether a client has it."""

import hmac
import os
from hashlib import sha256
from pathlib import Path

from ctnet_ray.errors import CtnetError

VARIABLE = "CTNET_SERVE_TOKEN"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SHORTEST = 16  #: characters of a token


def read_token(file: str | None) -> bytes | None:
    """Return the digest of the access token: the token itself is kept nowhere; None: there is none.

    Args:
        file: File that holds it; None: the environment's CTNET_SERVE_TOKEN, if it is set.

    Raises:
        CtnetError: The file can't be read, or the token is too short or no plain text.
    """
    where = file or f"the environment's {VARIABLE}"
    try:
        token = Path(file).read_text().strip() if file else os.environ.get(VARIABLE)
    except (OSError, UnicodeDecodeError) as error:
        raise CtnetError(f"no access token in {file} ({type(error).__name__}): write one into it") from error
    if token is None:
        return None
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise CtnetError(
            f"the access token in {where} is too short or no plain text: "
            f"{_SHORTEST} or more letters, digits and signs, without spaces"
        )
    return _digest(token.encode())


def check_host(host: str, token: bytes | None) -> None:
    """Refuse to listen where others can call, unless callers need a token.

    Raises:
        CtnetError: The host is not this machine's own, and there is no token.
    """
    if token is None and host not in LOOPBACK:
        raise CtnetError(
            f"--host {host} is open to other machines and there is no access token: "
            f"set {VARIABLE} or --token_file, or listen on {LOOPBACK[0]}"
        )


def is_allowed(authorization: str, token: bytes | None) -> bool:
    """Whether a request's Authorization header has the token; compared in constant time.

    Args:
        authorization: The header, "" where there is none.
        token: Digest of the token; None: everybody is allowed.
    """
    if token is None:
        return True
    scheme, _, given = authorization.partition(" ")
    return hmac.compare_digest(_digest(given.strip().encode()), token) and scheme.lower() == "bearer"


def _digest(token: bytes) -> bytes:
    return sha256(token).digest()
