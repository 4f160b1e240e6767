"""Pillow: limits, switches, and formats that are registered."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import pytest

Image = pytest.importorskip("PIL.Image")
ImageFile = pytest.importorskip("PIL.ImageFile")

if TYPE_CHECKING:
    from tests.adapters.conftest import Fleet

MODULE = """
import io
from PIL import Image, ImageFile, ImageShow

Image.MAX_IMAGE_PIXELS = {limit}
ImageFile.LOAD_TRUNCATED_IMAGES = {truncated}

class Format(ImageFile.ImageFile):
    format = "{name}"
    format_description = "{name}"
    def _open(self):
        self._size, self._mode, self.tile = (1, 1), "L", []

class Viewer(ImageShow.Viewer):
    pass

Image.register_open("OWN", Format, lambda prefix: prefix.startswith(b"own"))
Image.register_extension("OWN", ".own")
Image.register_mime("OWN", "image/{name}")
Image.register_save("OWN", lambda image, file, name: file.write(b"{name}"))
ImageShow.register(Viewer)

def sizes(data):
    try:
        return Image.open(io.BytesIO(data)).size
    except Image.DecompressionBombError:
        return "too large"

def load(data):
    try:
        return Image.open(io.BytesIO(data)).load() is not None
    except OSError:
        return "truncated"

def opened():
    return Image.open(io.BytesIO(b"own")).format_description

def saved():
    stream = io.BytesIO()
    Image.new("L", (1, 1)).save(stream, "OWN")
    return stream.getvalue()

def mime():
    return Image.registered_extensions()[".own"], Image.MIME["OWN"], ".png" in Image.registered_extensions()

def viewers():
    return sum(type(one) is Viewer for one in ImageShow._viewers)
"""


def png(width: int, height: int) -> bytes:
    stream = BytesIO()
    Image.effect_noise((width, height), 50).save(stream, "PNG")
    return stream.getvalue()


def test_limits_and_formats_are_each_module_s_own(fleet: Fleet) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    one = fleet.start("one", MODULE.format(name="one", limit=100, truncated=True))
    two = fleet.start("two", MODULE.format(name="two", limit="None", truncated=False))
    large = png(50, 50)
    assert [one.call("sizes", large), two.call("sizes", large)] == ["too large", (50, 50)]
    assert [one.call("sizes", png(9, 9)), Image.open(BytesIO(large)).size] == [(9, 9), (50, 50)]
    cut = png(9, 9)[:-30]
    assert [one.call("load", cut), two.call("load", cut)] == [True, "truncated"]
    with pytest.raises(OSError, match="truncated"):
        Image.open(BytesIO(cut)).load()
    for name, module in (("one", one), ("two", two)):
        assert [module.call("opened"), module.call("saved")] == [name, name.encode()]
        assert module.call("mime") == ("OWN", f"image/{name}", True)
        assert module.call("viewers") == 1
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(BytesIO(b"own"))
    assert limit == Image.MAX_IMAGE_PIXELS
    assert not {"OWN"} & {*Image.ID, *Image.OPEN, *Image.MIME, *Image.SAVE}

    again = fleet.start("one", MODULE.format(name="newer", limit=10_000, truncated=False))
    assert [again.call("sizes", large), again.call("opened"), two.call("opened")] == [(50, 50), "newer", "two"]
    assert again.call("load", cut) == "truncated"
    fleet.stop_all()
    assert [Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, type(Image.OPEN)] == [limit, False, dict]
    assert "OWN" not in Image.ID


def test_the_limit_of_the_base_is_what_modules_start_with(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    source = MODULE.replace("Image.MAX_IMAGE_PIXELS = {limit}", "").format(name="one", truncated=False)
    assert fleet.start("one", source).call("sizes", png(50, 50)) == "too large"
    fleet.stop_all()


def test_formats_of_the_application_of_the_base_are_its_own(fleet: Fleet) -> None:
    Image.register_save("BASED", lambda image, file, name: file.write(b"base"))
    Image.register_extension("BASED", ".based")
    Image.register_mime("BASED", "image/based")
    source = """
    import io
    from PIL import Image
    def see():
        Image.init()
        known = ("BASED" in Image.SAVE, ".based" in Image.EXTENSION, "BASED" in Image.MIME)
        stream = io.BytesIO()
        Image.new("L", (1, 1)).save(stream, "PNG")
        return known, ".png" in Image.EXTENSION, len(stream.getvalue()) > 20
    """
    assert fleet.start("one", source).call("see") == ((False, False, False), True, True)
    fleet.stop_all()
    assert [Image.EXTENSION.pop(".based"), Image.MIME.pop("BASED")] == ["BASED", "image/based"]
    del Image.SAVE["BASED"]
