"""Read the body of a response, with a limit on its size before and after decompression.

A compressed kilobyte can expand to a megabyte, or with newer codings to a gigabyte, in one step. Bodies are
therefore decompressed in steps of bounded size. Requests ask for no compression, but some servers compress
with gzip or deflate anyway.
"""

from __future__ import annotations

import zlib

from caft_utils.interpret.endpoint.reply import EndpointError


class Body:
    """Collects the chunks of a body. `content` holds the decompressed bytes so far.

    Raises:
        EndpointError: the content coding is not known, or the content is larger than `limit` bytes.
    """

    def __init__(self, coding: str | None, limit: int):
        coding = (coding or "identity").strip().lower()
        if coding not in ("identity", "gzip", "x-gzip", "deflate"):
            message = f"the server compresses with {coding[:40]!r}, although it was asked not to"
            raise EndpointError(message, status=200, for_all=True)
        # 47: zlib recognises the headers of gzip and zlib.
        self._decoder = None if coding == "identity" else zlib.decompressobj(47)
        self.content, self._limit = bytearray(), limit

    def add(self, chunk: bytes) -> None:
        """Add the next chunk. Raises zlib.error if it is not compressed as the header says."""
        if self._decoder is None:
            self.content += chunk
        else:
            self.content += self._decoder.decompress(chunk, self._limit + 1 - len(self.content))
        if len(self.content) > self._limit:
            raise EndpointError(f"the server sent more than {self._limit} bytes", status=200)
