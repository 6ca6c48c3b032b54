"""Numbers that look random and are the same in every run."""

from hashlib import blake2b


def share(*parts: object) -> float:
    """Give a number from 0 up to 1 that depends on the parts alone."""
    return int.from_bytes(_digest(parts, 6)) / 2**48


def mark(*parts: object) -> str:
    """Give 32 hexadecimal digits that depend on the parts alone."""
    return _digest(parts, 16).hex()


def _digest(parts: tuple[object, ...], size: int) -> bytes:
    return blake2b("\x1f".join(map(str, parts)).encode(), digest_size=size).digest()
