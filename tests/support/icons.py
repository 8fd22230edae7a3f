"""The icons of the web manifest, drawn by Chromium from the page's own. `scripts/icons` writes them anew."""

from __future__ import annotations

import struct
import zlib

from lastcall.web.pages import STATIC

from .browser import open_browser

SIZES = (192, 512)
GROUND, SIGN = (15, 118, 110), (255, 255, 255)
BITS = 2  # for each pixel: levels between the two colours, an eighth of what Chromium writes
LEVELS = 1 << BITS
# To the edges, because systems cut icons into shapes of their own; the sign in the inner 80 % that all of them show.
DRAW = """async ([svg, size]) => {
    const image = new Image();
    image.src = "data:image/svg+xml," + encodeURIComponent(svg);
    await image.decode();
    const pen = new OffscreenCanvas(size, size).getContext("2d");
    pen.fillStyle = "#0f766e";
    pen.fillRect(0, 0, size, size);
    pen.drawImage(image, size * 0.06, size * 0.06, size * 0.88, size * 0.88);
    return Array.from(pen.getImageData(0, 0, size, size).data.filter((_, index) => index % 4 === 0));
}"""


def draw() -> None:
    """Writes a file for each size."""
    svg = (STATIC / "favicon.svg").read_text().replace("<svg ", '<svg width="512" height="512" ')
    with open_browser() as browser:
        page = browser.new_page()
        for size in SIZES:
            reds = page.evaluate(DRAW, [svg, size])
            (STATIC / f"icon-{size}.png").write_bytes(_png(size, [_level(red) for red in reds]))


def _level(red: int) -> int:
    return round((red - GROUND[0]) / (SIGN[0] - GROUND[0]) * (LEVELS - 1))


def _png(size: int, levels: list[int]) -> bytes:
    per_byte = 8 // BITS
    packed = bytes(
        sum(level << (8 - BITS * (place + 1)) for place, level in enumerate(levels[at : at + per_byte]))
        for at in range(0, len(levels), per_byte)
    )
    width = size // per_byte
    rows = b"".join(b"\0" + packed[at : at + width] for at in range(0, len(packed), width))
    palette = bytes(
        round(start + (end - start) * level / (LEVELS - 1))
        for level in range(LEVELS)
        for start, end in zip(GROUND, SIGN, strict=True)
    )
    header = struct.pack(">IIBBBBB", size, size, BITS, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


if __name__ == "__main__":
    draw()
