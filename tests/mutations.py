"""Random mutations of files, by their kind: bytes, text, JSON, safetensors and others. A seed repeats them."""

import gzip
import json
import random
import re
from collections.abc import Callable
from typing import Any

INTEGERS = (0, 1, -1, 127, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30)
RAW = {  # JSON that json.dumps cannot write: each placeholder string is replaced by its text
    "@digits@": "9" * 5000,
    "@infinite@": "1e999",
    "@deep@": "[" * 5000 + "]" * 5000,
    "@deeper@": '{"a":' * 100_000 + "0" + "}" * 100_000,
}
TEXTS = (
    *("", " ", "a", "x" * 5000, "../../x", "/etc/passwd", "..", "\0", "a\0b", "\n", "\x1b[31m", "\x9b2J", "\u202e"),
    *("\ud800", "a\udfff", "\ufffd", "Ġ", "🤖", "é", "$\\frac{$", "%s{0}", "None", "nan", "²", "-1"),
)
VALUES = (None, True, False, 1e308, -1e-320, 0.5, float("nan"), [], {}, [0] * 300, [[[[]]]], {"a": 1}, [None], [{}])
TOML_VALUES = (
    *("true", '"x"', "[]", "{}", "nan", "inf", "-inf", "1e308", "0x" + "f" * 6000, "9" * 5000, "1979-05-27", "'gpt'"),
    *("[" * 3000, "[[" * 40 + "]]" * 40, "{a=1}", '"\\ud800"', '"\\u0000"', '"""', "[0x" + "f" * 6000 + "]", "0o7"),
)
DTYPES = ("BOOL", "U8", "I8", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "F64", "I64", "U64", "C64")
DTYPES += ("F8_E5M2", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2", "F8_E4M3FNUZ")
WIDTHS = {"F32": ("I32", "U32"), "F64": ("I64", "U64", "C64"), "I64": ("F64", "U64"), "U8": ("I8", "BOOL", "F8_E4M3")}
Mutate = Callable[[bytes, random.Random], bytes]


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip a bit, delete, insert, repeat or move bytes, or overwrite a number. The result is at most twice as long."""
    changed = bytearray(content)
    start, end = sorted(rng.randint(0, len(content)) for _ in range(2))
    end = min(end, start + rng.choice((1, 4, 64, len(content))))
    match rng.randrange(9):
        case 0 if content:
            changed[start % len(content)] ^= 1 << rng.randrange(8)
        case 1 if content:
            changed[start % len(content)] = rng.choice((0, 0x7F, 0x80, 0xFF, 0x0A, 0x22, 0x5C, rng.randrange(256)))
        case 2:
            del changed[start:]
        case 3:
            del changed[start:end]
        case 4:
            changed[start:start] = rng.randbytes(rng.choice((1, 2, 8, 50)))
        case 5:
            changed[start:start] = content[start:end]
        case 6:
            there = rng.randint(0, len(content))
            changed[there : there + end - start] = content[start:end]
        case 7:
            size = rng.choice((1, 2, 4, 8))
            changed[start : start + size] = (rng.choice(INTEGERS) % 2 ** (8 * size)).to_bytes(size, "little")
        case _:
            number = encode_varint(rng.choice(INTEGERS))
            changed[start : start + rng.choice((0, 1, len(number)))] = number
    return bytes(changed)


def encode_varint(number: int) -> bytes:
    """Encode the low 64 bits of a number as a varint, as Protocol Buffers and Thrift do."""
    number %= 2**64
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def mutate_text(content: bytes, rng: random.Random) -> bytes:
    """Delete, repeat or swap lines, or replace a number or the value after = or :."""
    text = content.decode("utf-8", "surrogateescape")
    lines = text.split("\n")
    n, m = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            del lines[n]
        case 1:
            lines.insert(n, lines[m])
        case 2:
            lines[n], lines[m] = lines[m], lines[n]
        case 3:
            lines[n] = re.sub(r"\d+", lambda _: str(rng.choice(INTEGERS)), lines[n], count=1)
        case 4:
            lines[n] = re.sub(r"([=:]).*", lambda found: f"{found[1]} {rng.choice(TOML_VALUES)}", lines[n], count=1)
        case _:
            place = rng.randint(0, len(lines[n]))
            lines[n] = lines[n][:place] + rng.choice((*TEXTS, ".a" * 2000, "[a]", "#", '"')) + lines[n][place:]
    text = "\n".join(lines)
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # unpaired surrogates, which UTF-8 cannot encode
        return text.encode("utf-8", "surrogatepass")


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """Replace a value by one of another type, delete, repeat or rename a key, or move an entry of a list."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return mutate_bytes(content, rng)
    holder = {"": tree}
    mutate_tree(holder, rng)
    text = json.dumps(holder.get("", tree), ensure_ascii=rng.random() < 0.7, indent=rng.choice((None, 1)))
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    if rng.random() < 0.05 and (keys := re.findall(r'"\w+":', text)):
        text = text.replace("{", f"{{{rng.choice(keys)} {json.dumps(rng.choice(TEXTS))}, ", 1)
    return text.encode("utf-8", "surrogatepass")


def mutate_tree(holder: dict | list, rng: random.Random) -> None:
    """Change one value at a random depth of a dictionary or list."""
    places = list(holder) if isinstance(holder, dict) else range(len(holder))
    if not places:
        return
    place: Any = rng.choice(list(places))
    inner = holder[place]
    if isinstance(inner, dict | list) and inner and rng.random() < 0.85:
        mutate_tree(inner, rng)
        return
    match rng.randrange(8):
        case 0:
            del holder[place]
        case 1 if isinstance(holder, dict):
            holder[rng.choice((*TEXTS, *holder))] = holder.pop(place)
        case 1 | 2 if isinstance(holder, list):
            holder.insert(rng.randint(0, len(holder)), inner)
        case 3 if isinstance(inner, str):
            holder[place] = inner.upper() if rng.random() < 0.3 else inner[:-1] + rng.choice(TEXTS)
        case 3 | 4 if isinstance(inner, int | float) and not isinstance(inner, bool):
            holder[place] = rng.choice((inner + 1, inner - 1, -inner, 2 * inner, float(inner), str(inner), [inner]))
        case 5:
            holder[place] = rng.choice(INTEGERS)
        case 6:
            holder[place] = rng.choice((*TEXTS, *RAW))
        case _:
            holder[place] = rng.choice(VALUES)


def mutate_json_lines(content: bytes, rng: random.Random) -> bytes:
    """Mutate one line as JSON, or delete, repeat or swap lines."""
    if rng.random() < 0.2:
        return mutate_text(content, rng)
    lines = content.split(b"\n")
    n = rng.randrange(len(lines))
    lines[n] = mutate_json(lines[n], rng)
    return b"\n".join(lines)


def mutate_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Mutate the header as JSON, a dtype or shape in it, the header's length, or the numbers after it."""
    size = int.from_bytes(content[:8], "little")
    header, body = content[8 : 8 + size], content[8 + size :]
    match rng.randrange(6):
        case 0:
            size = rng.choice((*INTEGERS, 2**60, size - 1, size + 1)) % 2**64
        case 1:
            return content[: 8 + size] + mutate_bytes(body, rng)
        case 2:
            numbers = bytearray(body)
            start = rng.randrange(max(1, len(body) // 4)) * 4
            numbers[start : start + 4] = rng.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff", b"\xff" * 4))
            return content[: 8 + size] + bytes(numbers[: len(body)])
        case 3 | 4:
            header = mutate_tensor_entry(header, rng)
            size = len(header)
        case _:
            header = mutate_json(header, rng)
            size = len(header)
    return size.to_bytes(8, "little") + header + body


def mutate_tensor_entry(header: bytes, rng: random.Random) -> bytes:
    """Return a header in which one tensor has another dtype, shape, offset or name."""
    try:
        tensors = json.loads(header)
        name = rng.choice([name for name in tensors if name != "__metadata__"])
        about = tensors[name]
        match rng.randrange(5):
            case 0:
                about["dtype"] = rng.choice(WIDTHS.get(about["dtype"], DTYPES))
            case 1:
                about["dtype"] = rng.choice(DTYPES)
            case 2:
                about["shape"] = rng.choice((about["shape"][::-1], [*about["shape"], 1], [1, *about["shape"], 1], []))
            case 3:
                about["data_offsets"] = rng.choice((about["data_offsets"][::-1], [0, 0], [0, 2**63], [2**64 - 1, 0]))
            case _:
                tensors[rng.choice((*TEXTS[:-3], name + ".a", name[:-1]))] = tensors.pop(name)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return mutate_bytes(header, rng)
    return json.dumps(tensors).encode("utf-8", "surrogatepass")


def mutate_packed(pack: Callable[[bytes], bytes], unpack: Callable[[bytes], bytes], inner: Mutate) -> Mutate:
    """Return a mutation of compressed files: half of the time of the file itself, otherwise of its unpacked content."""

    def change(content: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return mutate_bytes(content, rng)
        try:
            return pack(inner(unpack(content), rng))
        except Exception:  # an earlier mutation has broken the compression
            return mutate_bytes(content, rng)

    return change


mutate_gzip = mutate_packed(lambda content: gzip.compress(content, mtime=0), gzip.decompress, mutate_text)


def mutate(content: bytes, rng: random.Random, change: Mutate) -> bytes:
    """Mutate the content one to four times, most often by the mutation of its kind."""
    for _ in range(rng.choice((1, 1, 1, 1, 1, 2, 2, 4))):
        content = (change if rng.random() < 0.75 else mutate_bytes)(content, rng)
    return content
