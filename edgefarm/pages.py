"""What a health port says in plain HTTP, one GET a connection: pages as bytes. Pure: programs own the socket."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qsl


@dataclass(frozen=True)
class Page:
    """An answer."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"

    @classmethod
    def text(cls, line: str, *, ok: bool = True) -> Page:
        """One line for a person: 200, else 503."""
        return cls(f"{line}\n".encode(), HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE)

    def encode(self) -> bytes:
        """The whole answer, after which the connection ends."""
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + self.body


BAD_REQUEST = Page(b"bad request\n", HTTPStatus.BAD_REQUEST)
NOT_ALLOWED = Page(b"only GET is allowed\n", HTTPStatus.METHOD_NOT_ALLOWED)


def request_line(head: bytes) -> tuple[str, str] | None:
    """Method and path of a request without its query; None when it is no HTTP request."""
    words = _words(head)
    return (words[0], words[1].partition("?")[0]) if len(words) == 3 else None


def query(head: bytes) -> dict[str, str]:
    """The query of a request, decoded; of a name that comes twice the last value."""
    words = _words(head)
    return dict(parse_qsl(words[1].partition("?")[2])) if len(words) == 3 else {}


def _words(head: bytes) -> list[str]:
    return head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
