"""Snappy and zstd for kafka-python, which brings neither: the tools must read whatever producers wrote.

kafka-python looks for `python-snappy` and `zstandard` when it is imported. Where it found none, `install` puts the
libraries in their place that the node itself uses for these codecs.
"""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

from odradek.wire.compression import Codec, compress, decompress

OUTPUT_MAX = 256 * 1024 * 1024  # bytes one batch may unfold to in a console tool


def install() -> None:
    """Give kafka-python the codecs it lacks. Idempotent."""
    import kafka.codec

    if kafka.codec.snappy is None:
        import cramjam

        kafka.codec.snappy = SimpleNamespace(
            compress=lambda block: bytes(cramjam.snappy.compress_raw(block)),
            decompress=lambda block: bytes(cramjam.snappy.decompress_raw(bytes(block))),
        )
    if kafka.codec.zstd is None:
        kafka.codec.zstd = SimpleNamespace(ZstdCompressor=_ZstdCompressor, ZstdDecompressor=_ZstdDecompressor)


class _ZstdCompressor:
    def compress(self, payload: Any) -> bytes:
        return compress(Codec.ZSTD, bytes(payload))


class _ZstdDecompressor:
    def stream_reader(self, source: io.BytesIO, read_across_frames: bool = True) -> io.BytesIO:
        assert read_across_frames
        return io.BytesIO(decompress(Codec.ZSTD, source.read(), OUTPUT_MAX))
