"""Frames on a socket: a length, a JSON header and raw bytes. Nothing is ever unpickled or evaluated.

Used on both sides. The grader's side passes deadlines and size limits and believes nothing it reads.
"""

import json
import socket
import struct
import time
from typing import Any

_LENGTHS = struct.Struct(">IQ")
HEADER_BYTES = 64_000
_dumps, _loads = json.dumps, json.loads  # student code may replace them in the module


class Closed(Exception):
    """The other side closed the channel."""


class Late(Exception):
    """The deadline passed."""


class Garbled(Exception):
    """What came is not a frame, or is too large."""


class Channel:
    """Sends and receives frames on a stream socket; a payload may have at most `payload_bytes`."""

    def __init__(self, stream: socket.socket, payload_bytes: int) -> None:
        self.stream = stream
        self.payload_bytes = payload_bytes

    def send(self, header: dict[str, Any], payload: bytes = b"", deadline: float | None = None) -> None:
        """Send one frame. Raises Late, Closed, or Garbled when the frame is larger than the limit."""
        head = _dumps(header).encode()
        if len(head) > HEADER_BYTES or len(payload) > self.payload_bytes:
            raise Garbled(f"a frame of {len(head)} + {len(payload)} bytes is too large to send")
        for part in (_LENGTHS.pack(len(head), len(payload)) + head, payload):
            view = memoryview(part)
            while view:
                view = view[self._within(deadline, self.stream.send, view) :]

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], bytes]:
        """Return the header and payload of the next frame. Raises Late, Closed or Garbled.

        `deadline` is a time of time.monotonic().
        """
        head_bytes, payload_bytes = _LENGTHS.unpack(self._exactly(_LENGTHS.size, deadline))
        if head_bytes > HEADER_BYTES or payload_bytes > self.payload_bytes:
            raise Garbled(f"a frame announces {head_bytes} + {payload_bytes} bytes")
        head = self._exactly(head_bytes, deadline)
        try:
            header = _loads(head)
        except (ValueError, RecursionError):
            raise Garbled("a header is not JSON") from None
        if not isinstance(header, dict):
            raise Garbled("a header is not an object")
        return header, self._exactly(payload_bytes, deadline)

    def close(self) -> None:
        """Close the socket."""
        self.stream.close()

    def _exactly(self, count: int, deadline: float | None) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self._within(deadline, self.stream.recv, min(count - len(parts), 1 << 20))
            if not part:
                raise Closed
            parts += part
        return bytes(parts)

    def _within(self, deadline: float | None, operation: Any, argument: Any) -> Any:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise Late
        try:
            self.stream.settimeout(left)
            return operation(argument)
        except TimeoutError:
            raise Late from None
        except OSError:
            raise Closed from None
