"""The workflows for comparing comfy_lite's nodes with ComfyUI's: one table, used by every such test.

`record_nodes.py` runs them on a real ComfyUI and stores the results; the tests run them on comfy_lite and, if
one is available, on a real ComfyUI again. Images are small and their sizes odd: edges and roundings must matter.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data" / "nodes"
INPUTS = DATA / "inputs"

#: Uploaded in addition to everything in INPUTS: (file, its name there, subfolder, folder type).
COPIES = (
    ("rgb.png", "rgb.png", "sub/folder", "input"),
    ("other.png", "in_output.png", "", "output"),
    ("other.png", "in_temp.png", "", "temp"),
)
EXTRA_PNGINFO = {"workflow": {"nodes": [], "title": "ä ✓"}, "other": [1, 2.5, None]}

METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
DITHERS = ("none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16")
BLEND_MODES = ("normal", "multiply", "screen", "overlay", "soft_light", "difference")

#: The release whose results of all cases are stored. Of later ones, only what differs is.
FIRST_RELEASE = "0.3.64"
#: Pictures that later releases decode with FFmpeg, whose colours, masks or pages are others than Pillow's.
READ_BY_FFMPEG = frozenset(
    {
        *("animated.gif", "cmyk.jpg", "grey_16.png", "grey_32.tif", "pages.tif", "palette.png", "photo.jpg"),
        *("plain.bmp", "rgb_transparent_color.png", "rotated.jpg", "transposed.jpg", "truncated.jpg"),
        *("two_lenses.mpo", "upside_down.jpg"),
    }
)

Link = list[Any]
#: Adds nodes to a `Graph`, and returns the link to what is saved of them, if it has not saved it itself.
Build = Callable[..., Link | None]


@dataclass(frozen=True)
class Case:
    """A workflow about one node. Its SaveImage nodes show the results."""

    node: str
    label: str
    workflow: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.node}: {self.label}"

    @property
    def hangs_on_the_decoder(self) -> bool:
        """Whether FFmpeg makes something else of its picture, so that the embedded engine cannot follow later releases.

        The text of a mask shows FFmpeg's 16 bits for its transparency in the last digit, too.
        """
        loaded = {
            node["inputs"].get("image") for node in self.workflow.values() if node["class_type"].startswith("Load")
        }
        return bool(loaded & READ_BY_FFMPEG) or self.name == "PreviewAny: mask"

    @property
    def about_files(self) -> bool:
        """Whether the files themselves are compared, with everything they contain besides pixels."""
        return self.node.startswith(("Save", "Preview"))


class Graph:
    """A workflow in the making. Methods that add a node return the link to its first output."""

    def __init__(self, prefix: str) -> None:
        self.nodes: dict[str, Any] = {}
        self._prefix = prefix

    def add(self, class_type: str, **inputs: Any) -> Link:
        node_id = str(len(self.nodes) + 1)
        self.nodes[node_id] = {"class_type": class_type, "inputs": inputs}
        return [node_id, 0]

    def load(self, name: str) -> Link:
        return self.add("LoadImage", image=name)

    def mask(self, name: str = "grey.png", channel: str = "red") -> Link:
        return self.add("LoadImageMask", image=name, channel=channel)

    def batch(self, *names: str) -> Link:
        link = self.load(names[0])
        for name in names[1:]:
            link = self.add("ImageBatch", image1=link, image2=self.load(name))
        return link

    def save(self, link: Link) -> None:
        self.add("SaveImage", images=link, filename_prefix=self._prefix)

    def save_mask(self, link: Link) -> None:
        self.save(self.add("MaskToImage", mask=link))


def _case(node: str, label: object, build: Build, *, mask: bool = False) -> Case:
    graph = Graph(f"{node}/{zlib.crc32(str(label).encode()):08x}")
    link = build(graph)
    if link is not None:
        (graph.save_mask if mask else graph.save)(link)
    return Case(node, str(label), graph.nodes)


def _simple(node: str, label: object, source: str = "rgb.png", **inputs: Any) -> Case:
    """A node with one image input called `image`."""
    return _case(node, label, lambda g: g.add(node, image=g.load(source), **inputs))


def _loading() -> Iterator[Case]:
    def load(graph: Graph, name: str) -> None:
        image, _ = graph.load(name)
        graph.save([image, 0])
        graph.save_mask([image, 1])

    names = [path.name for path in sorted(INPUTS.iterdir())]
    annotated = ("rgb.png [input]", "sub/folder/rgb.png", "in_output.png [output]", "in_temp.png [temp]")
    for name in (*names, *annotated):
        yield _case("LoadImage", name, lambda g, n=name: load(g, n))
    for name in (
        "rgb.png",
        "rgba.png",
        "grey.png",
        "grey_alpha.png",
        "palette_transparent.png",
        "grey_16.png",
        "rotated.jpg",
    ):
        for channel in ("alpha", "red", "green", "blue"):
            build = lambda g, n=name, c=channel: g.mask(n, c)  # noqa: E731
            yield _case("LoadImageMask", f"{name} {channel}", build, mask=True)


def _sources() -> Iterator[Case]:
    for width, height, batch, color in ((5, 3, 1, 0), (16, 9, 2, 0xFF8001), (1, 1, 1, 0xFFFFFF), (7, 7, 1, 0x0300FE)):
        inputs = {"width": width, "height": height, "batch_size": batch, "color": color}
        yield _case("EmptyImage", inputs, lambda g, i=inputs: g.add("EmptyImage", **i))
    for value in (0.0, 0.5, 0.77, 1.0):
        yield _case("SolidMask", value, lambda g, v=value: g.add("SolidMask", value=v, width=9, height=4), mask=True)


def _scaling() -> Iterator[Case]:
    sizes = ((24, 17), (48, 34), (13, 9), (7, 40), (1, 1), (90, 60), (0, 30), (30, 0), (0, 0), (141, 2))
    for method in METHODS:
        for crop in ("disabled", "center"):
            for width, height in sizes:
                inputs: dict[str, Any] = {
                    "upscale_method": method,
                    "width": width,
                    "height": height,
                    "crop": crop,
                }
                # A size of 0 means the size that keeps the aspect ratio: nothing is left to crop.
                if crop == "disabled" or width * height:
                    yield _simple("ImageScale", f"{method} {width}x{height} {crop}", **inputs)
        for source, size in (
            ("wide.png", (9, 30)),
            ("tall.png", (33, 12)),
            ("flat.png", (31, 29)),
            ("photo.jpg", (29, 31)),
        ):
            inputs = {"upscale_method": method, "width": size[0], "height": size[1], "crop": "center"}
            yield _simple("ImageScale", f"{method} {source}", source, **inputs)
        for factor in (0.02, 0.37, 0.5, 1.0, 1.7, 3.3):
            yield _simple("ImageScaleBy", f"{method} x{factor}", upscale_method=method, scale_by=factor)
        batch = _case(
            "ImageScaleBy",
            f"{method} batch",
            lambda g, m=method: g.add(
                "ImageScaleBy", image=g.batch("rgb.png", "other.png"), upscale_method=m, scale_by=0.61
            ),
        )
        yield batch


def _arranging() -> Iterator[Case]:
    yield _simple("ImageInvert", "rgb")
    for names in (("rgb.png", "other.png"), ("rgb.png", "wide.png", "tall.png"), ("tall.png", "rgb.png", "rgba.png")):
        yield _case("ImageBatch", names, lambda g, n=names: g.batch(*n))
    for amount in (1, 3):
        yield _simple("RepeatImageBatch", amount, amount=amount)
    for index, length in ((0, 1), (1, 2), (2, 9), (9, 1)):
        build = lambda g, i=index, n=length: g.add(  # noqa: E731
            "ImageFromBatch", image=g.batch("rgb.png", "other.png", "rgba.png"), batch_index=i, length=n
        )
        yield _case("ImageFromBatch", f"{index}+{length}", build)
    for x, y, width, height in ((0, 0, 24, 17), (3, 5, 7, 6), (20, 15, 99, 99), (500, 500, 4, 4), (23, 0, 1, 17)):
        yield _simple("ImageCrop", (x, y, width, height), x=x, y=y, width=width, height=height)
    for method in ("x-axis: vertically", "y-axis: horizontally"):
        yield _simple("ImageFlip", method, flip_method=method)
    for rotation in ("none", "90 degrees", "180 degrees", "270 degrees"):
        yield _simple("ImageRotate", rotation, rotation=rotation)


def _padding() -> Iterator[Case]:
    def pad(graph: Graph, inputs: dict[str, int]) -> None:
        padded, _ = graph.add("ImagePadForOutpaint", image=graph.load("rgb.png"), **inputs)
        graph.save([padded, 0])
        graph.save_mask([padded, 1])

    for sides in ((8, 0, 0, 0), (0, 8, 0, 0), (0, 0, 8, 0), (0, 0, 0, 8), (16, 8, 8, 24), (0, 0, 0, 0)):
        for feathering in (0, 5, 8, 40):
            inputs = dict(zip(("left", "top", "right", "bottom"), sides, strict=True), feathering=feathering)
            yield _case("ImagePadForOutpaint", inputs, lambda g, i=inputs: pad(g, i))


def _blending() -> Iterator[Case]:
    def blend(graph: Graph, first: Link, second: Link, mode: str, factor: float) -> Link:
        return graph.add("ImageBlend", image1=first, image2=second, blend_factor=factor, blend_mode=mode)

    build: Build
    for mode in BLEND_MODES:
        for factor in (0.0, 0.3, 0.5, 1.0):
            build = lambda g, m=mode, f=factor: blend(g, g.load("rgb.png"), g.load("other.png"), m, f)  # noqa: E731
            yield _case("ImageBlend", f"{mode} {factor}", build)
        build = lambda g, m=mode: blend(g, g.load("tall.png"), g.load("wide.png"), m, 0.7)  # noqa: E731
        yield _case("ImageBlend", f"{mode} of other sizes", build)

        def overshooting(graph: Graph, mode: str = mode) -> Link:
            scale = {"upscale_method": "bicubic", "width": 33, "height": 25, "crop": "disabled"}
            first = graph.add("ImageScale", image=graph.load("edges.png"), **scale)
            second = graph.add("ImageScale", image=graph.load("other.png"), **scale)
            return blend(graph, first, second, mode, 0.8)

        yield _case("ImageBlend", f"{mode} of values beyond 0 and 1", overshooting)
    build = lambda g: blend(g, g.batch("rgb.png", "rgba.png"), g.load("other.png"), "screen", 0.5)  # noqa: E731
    yield _case("ImageBlend", "batch with one", build)


def _filtering() -> Iterator[Case]:
    for source in ("rgb.png", "edges.png"):
        for radius in (1, 2, 5, 16):
            for sigma in (0.1, 1.0, 10.0):
                yield _simple("ImageBlur", f"{source} {radius} {sigma}", source, blur_radius=radius, sigma=sigma)
        for radius in (1, 3, 16):
            for sigma, alpha in ((0.1, 1.0), (1.0, 0.0), (1.0, 1.0), (0.37, 5.0), (10.0, 2.5)):
                inputs = {"sharpen_radius": radius, "sigma": sigma, "alpha": alpha}
                yield _simple("ImageSharpen", f"{source} {radius} {sigma} {alpha}", source, **inputs)
    batch = {"blur_radius": 3, "sigma": 0.7}
    yield _case("ImageBlur", "batch", lambda g: g.add("ImageBlur", image=g.batch("rgb.png", "other.png"), **batch))
    yield _simple("ImageBlur", "photo 31", "photo.jpg", blur_radius=31, sigma=1.0)
    yield _simple("ImageSharpen", "photo 31", "photo.jpg", sharpen_radius=31, sigma=1.0, alpha=1.0)
    yield _simple("ImageBlur", "flat", "flat.png", blur_radius=4, sigma=1.0)
    yield _simple("ImageBlur", "radius too large", blur_radius=17, sigma=1.0)
    yield _simple("ImageSharpen", "radius too large", sharpen_radius=24, sigma=1.0, alpha=1.0)


def _quantizing() -> Iterator[Case]:
    for dither in DITHERS:
        for colors in (1, 2, 3, 16, 256):
            yield _simple("ImageQuantize", f"{colors} {dither}", colors=colors, dither=dither)
        yield _simple("ImageQuantize", f"photo {dither}", "photo.jpg", colors=7, dither=dither)

    def overshooting(graph: Graph) -> Link:
        scale = {"upscale_method": "bicubic", "width": 33, "height": 25, "crop": "disabled"}
        scaled = graph.add("ImageScale", image=graph.load("edges.png"), **scale)
        return graph.add("ImageQuantize", image=scaled, colors=9, dither="none")

    yield _case("ImageQuantize", "values beyond 0 and 1", overshooting)
    build = lambda g: g.add("ImageQuantize", image=g.batch("rgb.png", "flat.png"), colors=5, dither="bayer-4")  # noqa: E731
    yield _case("ImageQuantize", "batch", build)


def _compositing() -> Iterator[Case]:
    offsets = ((0, 0), (5, 3), (20, 14), (24, 17), (400, 2))
    for source in ("rgba.png", "wide.png"):
        for x, y in offsets:
            for mask in (None, "same", "other size"):

                def composite(
                    graph: Graph, source: str = source, x: int = x, y: int = y, mask: str | None = mask
                ) -> Link:
                    inputs = {"destination": graph.load("rgb.png"), "source": graph.load(source), "x": x, "y": y}
                    if mask is not None:
                        inputs["mask"] = graph.mask() if mask == "same" else graph.mask("wide.png")
                    return graph.add("ImageCompositeMasked", **inputs, resize_source=x == 5)

                yield _case("ImageCompositeMasked", f"{source} at {x},{y}, mask: {mask}", composite)

    def batches(graph: Graph, destination: int, source: int) -> Link:
        names = ("rgb.png", "other.png", "flat.png", "rgba.png")
        return graph.add(
            "ImageCompositeMasked",
            destination=graph.batch(*names[:destination]),
            source=graph.batch(*names[::-1][:source]),
            x=2,
            y=1,
            resize_source=False,
            mask=[graph.load("rgba.png")[0], 1],
        )

    for below, above in ((1, 3), (3, 1), (3, 2), (2, 2)):
        build = lambda g, d=below, s=above: batches(g, d, s)  # noqa: E731
        yield _case("ImageCompositeMasked", f"{above} images on {below}", build)


def _masking() -> Iterator[Case]:
    build: Build
    yield _case("InvertMask", "grey", lambda g: g.add("InvertMask", mask=g.mask()), mask=True)
    yield _case("MaskToImage", "alpha", lambda g: g.add("MaskToImage", mask=[g.load("rgba.png")[0], 1]))
    for channel in ("red", "green", "blue", "alpha"):
        build = lambda g, c=channel: g.add("ImageToMask", image=g.load("rgb.png"), channel=c)  # noqa: E731
        yield _case("ImageToMask", channel, build, mask=True)
    for expand in (0, 1, 3, 40, -1, -4):
        for tapered in (True, False):
            inputs = {"expand": expand, "tapered_corners": tapered}
            build = lambda g, i=inputs: g.add("GrowMask", mask=g.mask("edges.png", "green"), **i)  # noqa: E731
            yield _case("GrowMask", inputs, build, mask=True)
    for sides in ((0, 0, 0, 0), (5, 0, 0, 0), (0, 5, 0, 0), (0, 0, 5, 0), (0, 0, 0, 5), (4, 3, 6, 2), (99, 99, 99, 99)):
        inputs = dict(zip(("left", "top", "right", "bottom"), sides, strict=True))
        build = lambda g, i=inputs: g.add("FeatherMask", mask=g.mask(), **i)  # noqa: E731
        yield _case("FeatherMask", inputs, build, mask=True)
    build = lambda g: g.add("GrowMask", mask=[g.load("animated.png")[0], 1], expand=2, tapered_corners=True)  # noqa: E731
    yield _case("GrowMask", "batch", build, mask=True)


def _saving() -> Iterator[Case]:
    frames = ("rgb.png", "other.png", "rgba.png")

    def last(node: str, label: object, count: int = 3, **inputs: Any) -> Case:
        def build(graph: Graph) -> None:
            graph.add(node, images=graph.batch(*frames[:count]), **inputs)

        return _case(node, label, build)

    for prefix_used in (
        "plain",
        "sub/fol der/name",
        "%width%x%height%/%batch_num%",
        "tricky_00007",
        "a//b/../c",
        "../escape",
    ):
        yield last("SaveImage", prefix_used, 2, filename_prefix=prefix_used)
    yield last("PreviewImage", "batch")
    yield last("SaveImageWebsocket", "batch")
    for fps, lossless, quality, method in (
        (6.0, True, 80, "default"),
        (30.0, False, 80, "fastest"),
        (0.5, False, 5, "slowest"),
        (1000.0, True, 100, "slowest"),
    ):
        inputs: dict[str, Any] = {
            "filename_prefix": "webp/clip",
            "fps": fps,
            "lossless": lossless,
            "quality": quality,
            "method": method,
        }
        yield last("SaveAnimatedWEBP", (fps, lossless, quality, method), **inputs)
    yield last(
        "SaveAnimatedWEBP",
        "still",
        1,
        filename_prefix="webp/clip",
        fps=6.0,
        lossless=True,
        quality=80,
        method="default",
    )
    for fps, level in ((6.0, 4), (24.0, 0), (0.01, 9)):
        yield last("SaveAnimatedPNG", (fps, level), filename_prefix="apng/clip", fps=fps, compress_level=level)
    yield last("SaveAnimatedPNG", "still", 1, filename_prefix="apng/clip", fps=6.0, compress_level=4)
    for source in ("text", "", 5, 2.5, True, {"a": [1, None]}):
        yield _case("PreviewAny", repr(source), lambda g, s=source: g.add("PreviewAny", source=s) and None)


def _showing() -> Iterator[Case]:
    def show(label: str, build: Callable[[Graph], Link]) -> Case:
        def add(graph: Graph) -> None:
            graph.add("PreviewAny", source=build(graph))

        return _case("PreviewAny", label, add)

    def empty(graph: Graph, **inputs: int) -> Link:
        return graph.add("EmptyImage", **inputs, batch_size=1)

    yield show("image", lambda g: g.load("rgb.png"))
    yield show("batch", lambda g: g.batch("flat.png", "edges.png"))
    yield show("small image", lambda g: empty(g, width=3, height=2, color=0x010203))
    yield show("white image", lambda g: empty(g, width=1, height=1, color=0xFFFFFF))
    yield show("mask", lambda g: g.mask())
    yield show("solid mask", lambda g: g.add("SolidMask", value=0.33, width=5, height=4))
    yield show("row of zeros", lambda g: g.add("SolidMask", value=0.0, width=70, height=1))


def _all() -> Iterator[Case]:
    for group in (
        _loading,
        _sources,
        _scaling,
        _arranging,
        _padding,
        _blending,
        _filtering,
        _quantizing,
        _compositing,
        _masking,
        _saving,
        _showing,
    ):
        yield from group()


CASES = tuple(_all())
NODES = tuple(dict.fromkeys(case.node for case in CASES))
