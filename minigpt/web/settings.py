"""How a server listens, and what a request may ask for. This module imports nothing heavy."""

import secrets
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """The largest requests that the server accepts.

    Attributes:
        body_bytes: bytes of a request's body.
        upload_bytes: bytes of an uploaded text.
        stored_bytes: bytes of all uploaded texts together.
        trainings: trainings that run at once. The server refuses more with 503.
        prompt_characters: characters of a prompt, or of a text to look at.
        max_tokens: new tokens of one text.
        choices: texts of one request: prompts times `n`.
        stop_texts: stop sequences of one request.
        requests: requests that are computed at once. The server refuses more with 503.
        connections: open connections. The server refuses more with 503.
        seconds: time that one request may take.
        body_seconds: time that a client may take to send the body of a request.
    """

    body_bytes: int = 2**20
    upload_bytes: int = 2**26
    stored_bytes: int = 2**30
    trainings: int = 1
    prompt_characters: int = 100_000
    max_tokens: int = 10_000
    choices: int = 16
    stop_texts: int = 16
    requests: int = 64
    connections: int = 1000
    seconds: float = 120.0
    body_seconds: float = 10.0


@dataclass(frozen=True)
class ServerSettings:
    """How the server listens and whom it answers.

    Attributes:
        host: the address to listen on. The default can be reached from this machine only.
        port: the port; 0 lets the system choose a free one.
        allowed_hosts: names, besides `localhost`, by which a browser may call the server.
        token: what a client must send to use the API.
        limits: the largest requests.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)
    limits: Limits = Limits()
