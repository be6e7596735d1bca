"""Tokens, and the prefix cache that counts how many of a prompt's are known already."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

# English text has about four characters to a token; the endpoint picker assumes the same.
BYTES_PER_TOKEN = 4


def count(text: str) -> int:
    """The number of tokens of a text: a quarter of its UTF-8 bytes, rounded up."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


class PrefixCache:
    """Whole blocks of earlier prompts, the least recently used dropped first.

    A block is known only with everything before it, since its hash covers the
    chain of blocks, as in vLLM.
    """

    def __init__(self, block_size: int, blocks: int, enabled: bool = True):
        self._bytes, self._blocks, self._enabled = block_size * BYTES_PER_TOKEN, blocks, enabled
        self._size = block_size
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def take(self, prompt: str) -> int:
        """Tokens of the prompt that are cached; the prompt's blocks are cached afterwards."""
        if not self._enabled:
            return 0
        hits, missed = 0, False
        for block in self._hashes(prompt.encode()):
            if block in self._known and not missed:
                hits += 1
            else:
                missed = True
            self._known[block] = None
            self._known.move_to_end(block)
        while len(self._known) > self._blocks:
            self._known.popitem(last=False)
        return hits * self._size

    def _hashes(self, data: bytes) -> list[bytes]:
        result, chain = [], b""
        for start in range(0, len(data) - self._bytes + 1, self._bytes):
            chain = hashlib.blake2b(chain + data[start : start + self._bytes], digest_size=16).digest()
            result.append(chain)
        return result
