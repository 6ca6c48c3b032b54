from io import BytesIO

from PIL import Image

from bridge.emulator.images import FRAMES, Picture, draw

STILL = Picture(name="1_0", seed=7, width=128, height=64, moving=False)
MOVING = Picture(name="1_0", seed=7, width=128, height=64, moving=True)


def test_an_image_is_a_png_of_its_size() -> None:
    with Image.open(BytesIO(draw(STILL))) as image:
        assert (image.format, image.size) == ("PNG", (128, 64))


def test_a_video_is_an_animated_gif() -> None:
    with Image.open(BytesIO(draw(MOVING))) as image:
        assert (image.format, getattr(image, "n_frames", 1)) == ("GIF", FRAMES)


def test_the_same_picture_is_always_the_same_file() -> None:
    first = draw(STILL)
    draw.cache_clear()
    assert draw(STILL) == first
