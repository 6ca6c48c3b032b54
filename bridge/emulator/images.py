"""Real image and video files, drawn when they are fetched; always the same file for the same output."""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageChops, ImageDraw

FRAMES = 8
FRAME_MILLISECONDS = 125


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is to be seen on an output."""

    name: str
    seed: int
    width: int
    height: int
    moving: bool

    @property
    def format(self) -> str:
        """The file type, which is also the ending of its name."""
        return "gif" if self.moving else "png"

    @property
    def media_type(self) -> str:
        """The type as HTTP names it."""
        return f"image/{self.format}"


@lru_cache(maxsize=64)
def draw(picture: Picture) -> bytes:
    """Draw a picture: a PNG, or an animated GIF if it moves."""
    frames = [_frame(picture, turn) for turn in range(FRAMES if picture.moving else 1)]
    file = BytesIO()
    frames[0].save(
        file,
        format=picture.format.upper(),
        **({"save_all": True, "append_images": frames[1:], "duration": FRAME_MILLISECONDS} if picture.moving else {}),
    )
    return file.getvalue()


def _frame(picture: Picture, turn: int) -> Image.Image:
    size = (picture.width, picture.height)
    down = Image.linear_gradient("L").resize(size)
    across = down.rotate(90).resize(size)
    shift = picture.seed % 256
    moved = ImageChops.offset(across, turn * picture.width // FRAMES, 0)
    frame = Image.merge("RGB", (down, moved, Image.new("L", size, shift)))
    ImageDraw.Draw(frame).text(
        (8, 8), f"{picture.name}\nseed {picture.seed}\n{picture.width}x{picture.height}", "white"
    )
    return frame
