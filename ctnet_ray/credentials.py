"""User names, passwords and tokens in URIs: they are used, and neither written down nor said.

They belong into the environment: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or a database's own
variables and files (PGPASSWORD, ~/.pgpass, ~/.my.cnf).
"""

import re
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus, urlencode, urlsplit

SECRET = re.compile(r"secret|password|passwd|pwd|token|key|sig|credential|odbc_connect", re.IGNORECASE)
"""Names of parameters that hold a secret."""
_URI = re.compile(r"\w[\w+.-]*://[^\s'\"<>]+")
_SHORTEST = 3  #: characters; what is shorter stands in every text
_MASK = "***"


def without_credentials(text: str) -> str:
    """Return text with user, password and secret parameters taken out of every URI in it."""
    return _URI.sub(lambda match: _bare(match[0]), text)


def bare_uri(uri: str) -> str:
    """Return a URI without user, password and secret parameters; spaces and quotes may be in them."""
    return _bare(uri) if "://" in uri else uri


def hidden(text: str, uri: str) -> str:
    """Return text without what is secret in `uri`, wherever it stands, and without credentials of other URIs.

    Args:
        text: A message, of a database or a server that was given the URI.
        uri: The URI.
    """
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return without_credentials(text)


def user_and_password(uri: str) -> tuple[str, str] | None:
    """Return what a server is to be told, from an http URI; None: it names nobody."""
    parts = urlsplit(uri)
    return (unquote(parts.username or ""), unquote(parts.password or "")) if "@" in parts.netloc else None


def _bare(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    try:
        shown = _bare_http(uri) if scheme.lower() in ("http", "https") else _bare_database(uri)
    except ValueError:
        shown = None
    if shown is not None:
        return shown
    # What nobody can read is cut up to the last @: a password that is not quoted may hold anything.
    cut = f"{scheme}://{rest.rpartition('@')[2]}"
    return _bare(cut) if "@" in rest else cut.partition("?")[0]


def _bare_http(uri: str) -> str | None:
    parts = urlsplit(uri)
    if parts.port == 0 or "@" in parts.path:  # asked for, a port that is no number is an error
        return None
    query = parse_qsl(parts.query, keep_blank_values=True)
    shown = [(name, value) for name, value in query if not _is_secret(name)]
    if "@" not in parts.netloc and shown == query:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query=urlencode(shown)).geturl()


def _bare_database(uri: str) -> str | None:
    # Not at the top: who scores with an exported version has no database, and needs no SQLAlchemy.
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError

    try:
        url = sqlalchemy.make_url(uri)
    except ArgumentError:
        return None
    server = url.username is not None or url.host
    if server and "@" in f"{url.host}{url.database}":
        return None
    query = {name: value for name, value in url.query.items() if not _is_secret(name)}
    if url.username is None and len(query) == len(url.query):
        return uri
    return url._replace(username=None, password=None, query=query).render_as_string(hide_password=False)


def _is_secret(name: str) -> bool:
    return bool(SECRET.search(name)) or name == "user"


def _secrets(uri: str) -> set[str]:
    """Return what is secret in a URI, in each form in which it may be repeated."""
    rest = uri.partition("://")[2]
    before, mark, _ = rest.rpartition("@")
    user, colon, password = before.partition(":")
    # Where there is no password, the user is a token.
    secrets = {password if colon else user} if mark else set()
    try:
        query = parse_qsl(urlsplit(uri).query)
    except ValueError:
        query = []
    secrets |= {value for name, value in query if SECRET.search(name)}
    plain = {form for text in secrets for form in (text, unquote(text), unquote_plus(text))}
    forms = plain | {form for text in plain for form in (quote(text, safe=""), quote_plus(text))}
    return {form for form in forms if len(form) >= _SHORTEST}
