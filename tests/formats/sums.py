"""Checksums of the stored formats, and a cursor over bytes. Standard library only.

CRC-32C (Castagnoli): reflected polynomial 0x82F63B78, start and final xor 0xFFFFFFFF.
CRC-64/NVMe: reflected polynomial 0x9A6C9329AC4BC9B5, start and final xor all ones.

A byte at a time costs half a second per MiB in Python. So long input is cut into as many lanes as a lane has bytes, all
lanes advance by one byte at once (`bytes.translate` looks up a whole row, one XOR of long integers joins it), and the
registers of the lanes are put together at the end: a CRC is linear, appending B to A is "A's register through len(B)
zero bytes" xor "B's register".
"""

import functools
import math


class Wrong(Exception):
    """Bytes that are not what the page says."""


class _Crc:
    def __init__(self, poly, width):
        self.bytes, self.ones = width // 8, (1 << width) - 1
        self.table = []
        for n in range(256):
            for _ in range(8):
                n = (n >> 1) ^ (poly if n & 1 else 0)
            self.table.append(n)
        # Byte k of every entry, for `translate`.
        self.rows = [bytes(entry >> 8 * k & 255 for entry in self.table) for k in range(self.bytes)]

    def plain(self, data, register):
        for byte in data:
            register = self.table[(register ^ byte) & 255] ^ register >> 8
        return register

    @functools.lru_cache(maxsize=4096)
    def zeros(self, n):
        """What `n` zero bytes make of each single bit of the register."""
        if n == 1:
            return [self.plain(b"\0", 1 << bit) for bit in range(8 * self.bytes)]
        half = self.zeros(n // 2)
        double = [self.apply(half, value) for value in half]
        return [self.plain(b"\0", value) for value in double] if n % 2 else double

    @staticmethod
    def apply(columns, value):
        out = 0
        while value:
            low = value & -value
            out ^= columns[low.bit_length() - 1]
            value ^= low
        return out

    def sum(self, data, before):
        register = before ^ self.ones
        lanes = math.isqrt(len(data)) if len(data) >= 1024 else 0
        if lanes:
            data, n = bytes(data), len(data) // lanes
            body = lanes * n
            # state[k] holds byte k of every lane's register; lane 0 goes on from what stood before.
            state = [register >> 8 * k & 255 for k in range(self.bytes)]
            for at in range(n):
                row = int.from_bytes(data[at:body:n], "little") ^ state[0]
                row = row.to_bytes(lanes, "little")
                state = state[1:] + [0]
                for k, table in enumerate(self.rows):
                    state[k] ^= int.from_bytes(row.translate(table), "little")
            rows = [s.to_bytes(lanes, "little") for s in state]
            columns, register = self.zeros(n), 0
            for parts in zip(*rows):
                register = self.apply(columns, register) ^ int.from_bytes(bytes(parts), "little")
            data = data[body:]
        return self.plain(data, register) ^ self.ones


_C32 = _Crc(0x82F63B78, 32)
_C64 = _Crc(0x9A6C9329AC4BC9B5, 64)


def crc32c(data, before=0):
    """CRC-32C of `data`; `before` is the sum of what stands before it."""
    return _C32.sum(data, before)


def crc64nvme(data, before=0):
    """CRC-64/NVMe of `data`; `before` as above."""
    return _C64.sum(data, before)


class Cursor:
    """Reads fields one after the other; `order` is `<` (ours) or `>` (Kafka's and most records). Short input is `Wrong`."""

    def __init__(self, data, order):
        self.data, self.order, self.at = bytes(data), order, 0

    def take(self, n):
        if n < 0 or self.at + n > len(self.data):
            raise Wrong("wanted %d bytes at %d, there are %d" % (n, self.at, len(self.data) - self.at))
        self.at += n
        return self.data[self.at - n : self.at]

    def _int(self, n, signed):
        return int.from_bytes(self.take(n), "little" if self.order == "<" else "big", signed=signed)

    def u8(self):
        return self._int(1, False)

    def u16(self):
        return self._int(2, False)

    def u32(self):
        return self._int(4, False)

    def u48(self):
        return self._int(6, False)

    def u64(self):
        return self._int(8, False)

    def i8(self):
        return self._int(1, True)

    def i16(self):
        return self._int(2, True)

    def i32(self):
        return self._int(4, True)

    def i64(self):
        return self._int(8, True)

    def hex(self, n):
        return self.take(n).hex()

    def zero(self, n):
        if any(self.take(n)):
            raise Wrong("bytes %d..%d are not zero" % (self.at - n, self.at))

    def expect(self, name, got, want):
        if got != want:
            raise Wrong("%s is %r, wanted %r" % (name, got, want))

    def uvarint(self):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise Wrong("a varint has more than ten bytes")

    def varint(self):
        """Zigzag, as in Kafka's records."""
        value = self.uvarint()
        return value >> 1 ^ -(value & 1)

    def left(self):
        return len(self.data) - self.at

    def end(self):
        if self.left():
            raise Wrong("%d bytes are left over" % self.left())
