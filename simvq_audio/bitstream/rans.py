"""An entropy coder in integers: rANS with a state of 32 bits that moves 16 bits at a time.

Source: J. Duda, "Asymmetric numeral systems" (arXiv 1311.2540); the layout of state and words is
the usual one of F. Giesen's public ``ryg_rans``. A state begins and ends at 2**16, which a
decoder checks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simvq_audio.errors import CodesError

FREQUENCY_BITS = 16
_WORD_BITS = 16
_MASK = (1 << 16) - 1
_LOW = 1 << 16


def encode(starts: Sequence[int], counts: Sequence[int]) -> bytes:
    """Code symbols, each given by its interval in a table of frequencies that sum to 2**16.

    Returns:
        the state of 4 bytes, then words of 2 bytes, big-endian, in the order of decoding.
    """
    state = _LOW
    words: list[int] = []
    # Backwards, because decoding undoes the last step first.
    for start, count in zip(reversed(starts), reversed(counts)):
        if state >= count << _WORD_BITS:
            words.append(state & _MASK)
            state >>= _WORD_BITS
        state = (state // count << FREQUENCY_BITS) + state % count + start
    words.reverse()
    return state.to_bytes(4, "big") + np.array(words, ">u2").tobytes()


class Decoder:
    """Decodes several independent strings of ``encode`` side by side, symbol by symbol.

    Strings at the end may finish before the others: ``next`` takes a table for each that is left.
    Reading beyond the end of a string gives zeros; ``finish`` detects it.

    Raises:
        CodesError: a string is shorter than its state, cuts a word, or has an impossible state.
    """

    def __init__(self, strings: Sequence[bytes]) -> None:
        if any(len(string) < 4 or len(string) % 2 for string in strings):
            raise CodesError("an entropy-coded block has an impossible length")
        self._sizes = np.array([len(string) // 2 for string in strings])
        # One zero at the end of each row is read beyond its end.
        self._words = np.zeros((len(strings), self._sizes.max(initial=0) + 1), np.int64)
        for row, string in zip(self._words, strings):
            row[: len(string) // 2] = np.frombuffer(string, ">u2")
        self._state = (self._words[:, 0] << _WORD_BITS) + self._words[:, 1]
        if (self._state < _LOW).any():
            raise CodesError("an entropy-coded block begins with an impossible state")
        self._next = np.full(len(strings), 2)

    def next(self, tables: np.ndarray) -> np.ndarray:
        """Decode one symbol of each of the first strings.

        Args:
            tables: int64 (strings, n), frequencies of at least 1 that sum to 2**16.

        Returns:
            int64 (strings,).
        """
        count = len(tables)
        rows = np.arange(count)
        state = self._state[:count]
        ends = np.cumsum(tables, axis=1)
        slot = state & _MASK
        symbol = (ends <= slot[:, np.newaxis]).sum(axis=1)
        frequency = tables[rows, symbol]
        state >>= FREQUENCY_BITS
        state *= frequency
        state += slot
        state -= ends[rows, symbol] - frequency
        short = state < _LOW
        if short.any():
            position = self._next[:count]
            word = self._words[rows, np.minimum(position, self._words.shape[1] - 1)]
            state[short] = (state[short] << _WORD_BITS) + word[short]
            position += short
        return symbol

    def finish(self) -> np.ndarray:
        """Check that the state is back at its start, and that only zeros are left.

        Returns:
            bytes read of each string, int64 (strings,).

        Raises:
            CodesError: a string is not what ``encode`` wrote for these tables.
        """
        left_over = np.arange(self._words.shape[1]) >= self._next[:, np.newaxis]
        if (
            (self._state != _LOW).any()
            or (self._next > self._sizes).any()
            or self._words[left_over].any()
        ):
            raise CodesError("an entropy-coded block does not end where its codes do")
        return 2 * self._next
