"""Random jobs, each with the one way it must end, and its own planned S3 faults. Some want what is not theirs."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from PIL import Image

from comfy_serverless.aws.s3 import ATTEMPTS
from comfy_serverless.connector.made_files import JOBS_FOLDER
from demo.seed import INPUT_BUCKET
from tests.contract.saver_nodes import content_of
from tests.integration.faulty_s3 import Fault
from tests.soak.owners import CANARIES, OWNERS, Color, color_of, photo_name, photo_of, text_of

BROKEN_INPUT = "soak_broken.png"
#: Faults in the middle of a put, once or twice, which must not show.
_PASSING = (Fault.RESET, Fault.LOST_ANSWER, Fault.SLOW_DOWN, Fault.INTERNAL_ERROR)


@dataclass(frozen=True, slots=True)
class Picture:
    """Images that a node must make: how many, and their colour (None for a painted one)."""

    node_id: str
    count: int
    color: Color | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakJob:
    """A job to send.

    Attributes:
        code: the code it must fail with; "" for success.
        pictures: what it must make.
        files: the other outputs that it must make, each as `node/name`, with their bytes.
        is_frames: whether they come through the websocket: a warning reports those that are lost twice.
        is_heard: whether a caller waits for the answer.
        cancel_after_s: when to cancel it, counted from its start on the engine.
        copies: how many copies are sent at the same time.
        s3_faults: (method, end of the path, faults) for its own objects.
        costs_deliveries: how many times it must be sent again because of those, at most.
        input_object: the image it brings, by its key in the input bucket.
    """

    job_id: str
    owner: str
    kind: str
    graph: Mapping[str, Any]
    code: str = ""
    pictures: tuple[Picture, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    is_frames: bool = False
    is_heard: bool = True
    inputs: Mapping[str, str] = field(default_factory=dict)
    deadline_s: float | None = None
    cancel_after_s: float | None = None
    copies: int = 1
    s3_faults: tuple[tuple[str, str, tuple[Fault, ...]], ...] = ()
    costs_deliveries: int = 0
    input_object: tuple[str, bytes] | None = None

    @property
    def payload(self) -> dict[str, Any]:
        """The request."""
        deadline = {} if self.deadline_s is None else {"deadline_s": self.deadline_s}
        return {"job_id": self.job_id, "workflow": dict(self.graph), "inputs": dict(self.inputs), **deadline}


class Draw(random.Random):
    """Draws for the job of one owner."""

    def __init__(self, seed: object) -> None:
        super().__init__(str(seed))
        self.owner = self.choice(OWNERS)
        self.victim = self.choice([owner for owner in OWNERS if owner != self.owner])


def make_job(seed: int, number: int) -> SoakJob:
    """The job with this number: the same for the same seed."""
    draw = Draw(f"{seed}/{number}")
    job_id = f"soak-{seed}-{number:05d}"
    maker = draw.choices(list(_KINDS), weights=list(_KINDS.values()))[0]
    made = maker(draw, job_id)
    s3_faults, deliveries = _s3_faults(draw, made)
    values = {
        "job_id": job_id,
        "owner": draw.owner,
        "kind": maker.__name__.strip("_"),
        "is_heard": draw.random() < 0.6,
        "copies": 2 if not made.get("code") and "cancel_after_s" not in made and draw.random() < 0.04 else 1,
        "s3_faults": s3_faults,
        "costs_deliveries": deliveries,
    }
    return SoakJob(**{**values, **made})


def plain_job(job_id: str) -> SoakJob:
    """A job with which nothing can go wrong."""
    draw = Draw(job_id)
    return SoakJob(job_id=job_id, owner=draw.owner, kind="plain", **_small(draw, job_id))


def _s3_faults(draw: random.Random, made: Mapping[str, Any]) -> tuple[Any, int]:
    chance = draw.random()
    if made.get("code") or "cancel_after_s" in made or chance > 0.2:
        return (), 0
    if chance > 0.04:
        where = draw.choice(["result.json", "png"])
        return (("PUT", where, tuple(draw.choices(_PASSING, k=draw.randint(1, 2)))),), 0
    lasting = [
        ("PUT", "png", (draw.choice(_PASSING),) * ATTEMPTS),
        ("PUT", "png", (Fault.FLIPPED,)),
        ("PUT", "png", (Fault.OTHER_CHECKSUM,)),
        ("PUT", "png", (Fault.ACCESS_DENIED,)),
        ("PUT", "result.json", (Fault.ACCESS_DENIED,)),
        ("PUT", "result.json", (Fault.INTERNAL_ERROR,) * ATTEMPTS),
        ("GET", "result.json", (Fault.INTERNAL_ERROR,) * ATTEMPTS),
    ]
    return (draw.choice(lasting),), 1


# Kinds of jobs. Each function returns the fields in which its kind differs from a plain job.


def _small(draw: Draw, _: str) -> dict[str, Any]:
    color = _color(draw)
    return {"graph": _filled(draw, color), "pictures": (Picture("2", 1, color),)}


def _batch(draw: Draw, _: str) -> dict[str, Any]:
    color, count = _color(draw), draw.randint(8, 16)
    return {"graph": _filled(draw, color, count=count, side=128), "pictures": (Picture("2", count, color),)}


def _cached(draw: Draw, _: str) -> dict[str, Any]:
    # Of a few: the engine has painted it before, for the same owner.
    color = color_of(draw.owner, random.Random(draw.randrange(2)))
    return {"graph": _filled(random.Random(0), color), "pictures": (Picture("2", 1, color),)}


def _several(draw: Draw, _: str) -> dict[str, Any]:
    color = _color(draw)
    graph = _filled(draw, color, count=2)
    graph["3"] = {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}
    graph["4"] = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "inverted/soak"}}
    graph["5"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    pictures = (Picture("2", 2, color), Picture("4", 2, _inverted(color)), Picture("5", 2, color))
    return {"graph": graph, "pictures": pictures}


def _frames(draw: Draw, _: str) -> dict[str, Any]:
    color = _color(draw)
    graph = _filled(draw, color, count=3)
    graph["2"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}
    return {"graph": graph, "pictures": (Picture("2", 3, color),), "is_frames": True}


def _painted(draw: Draw, _: str) -> dict[str, Any]:
    return {"graph": _sampled(draw, steps=draw.randint(1, 8)), "pictures": (Picture("15", 1, None),)}


def _with_input(draw: Draw, job_id: str) -> dict[str, Any]:
    color, key = _color(draw), f"soak/{job_id}.png"
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(buffer, "PNG")
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "from the request"}},
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": f"soak/{job_id}"}},
    }
    return {
        "graph": graph,
        "inputs": {"1.image": f"s3://{INPUT_BUCKET}/{key}"},
        "input_object": (key, buffer.getvalue()),
        "pictures": (Picture("2", 1, _inverted(color)),),
    }


def _canceled(draw: Draw, _: str) -> dict[str, Any]:
    return {
        "graph": _sampled(draw, steps=draw.randint(20, 200)),
        "cancel_after_s": draw.uniform(0, 0.5),
        "code": "canceled",
        "pictures": (Picture("15", 1, None),),
    }


def _too_short(draw: Draw, _: str) -> dict[str, Any]:
    return {
        "graph": _sampled(draw, steps=10_000),
        "deadline_s": draw.uniform(0.05, 0.5),
        "code": "deadline_exceeded",
    }


def _unknown_node(draw: Draw, _: str) -> dict[str, Any]:
    graph = _filled(draw, _color(draw))
    graph["1"]["class_type"] = "EmptyImagee"
    return {"graph": graph, "code": "invalid_workflow"}


def _bad_value(draw: Draw, _: str) -> dict[str, Any]:
    graph = _filled(draw, _color(draw))
    graph["1"]["inputs"]["width"] = "wide"
    return {"graph": graph, "code": "invalid_workflow"}


def _node_error(draw: Draw, job_id: str) -> dict[str, Any]:
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": BROKEN_INPUT}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": f"soak/{job_id}"}},
    }
    return {"graph": graph, "code": "node_execution_error"}


def _missing_asset(draw: Draw, job_id: str) -> dict[str, Any]:
    return {**_with_input(draw, job_id), "input_object": None, "code": "missing_asset", "pictures": ()}


# What packs of nodes do, and who wants more than is theirs.


def _photo(draw: Draw, job_id: str) -> dict[str, Any]:
    color, content = photo_of(draw.owner)
    made = _with_input(draw, job_id)
    key = f"photos/{draw.owner}.png"
    made |= {"inputs": {"1.image": f"s3://{INPUT_BUCKET}/{key}"}, "input_object": (key, content)}
    return {**made, "pictures": (Picture("2", 1, _inverted(color)),)}


def _told(draw: Draw, _: str) -> dict[str, Any]:
    text = text_of(draw.owner)
    graph = {"2": {"class_type": "ContractUI", "inputs": {"ui": json.dumps({"text": [text]})}}}
    return {"graph": graph, "files": {"2/text_0.txt": text.encode()}}


def _saver(draw: Draw, job_id: str) -> dict[str, Any]:
    """Savers of packs. Not those that write after their end: what they leave in another's time nobody can tell."""
    saves, endings = draw.choice(list(_SAVERS.items()))
    prefix = f"{text_of(draw.owner)} {job_id}"
    names = [f"{prefix}{ending}" if ending.startswith(".") else ending for ending in endings]
    graph = {"2": {"class_type": "SaverOfAPack", "inputs": {"saves": saves, "filename_prefix": prefix}}}
    return {"graph": graph, "files": {f"2/{name}": content_of(prefix) for name in names}}


#: How they save, and how the names of their files end.
_SAVERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("in its own folder", "silently", "without making folders", "in temp"), (".bin",)),
    "by an absolute path": (".bin",),
    "under any name": ("20261129_121500.bin",),
    "with a caption": (".bin", ".txt"),
    **dict.fromkeys(("elsewhere", "by an upload of its own", "nothing"), ()),
}


def _echo(draw: Draw, job_id: str) -> dict[str, Any]:
    """It shows files that it has not made as its own."""
    path = draw.choice(CANARIES)
    shown = {"images": [*_references(draw, job_id), [_references(draw, job_id)]], "files": [path]}
    made = _small(draw, job_id)
    made["graph"]["7"] = {"class_type": "ContractUI", "inputs": {"ui": json.dumps(shown)}}
    return {**made, "files": {"7/files_0.txt": path.encode()}}


def _thief(draw: Draw, job_id: str) -> dict[str, Any]:
    """It loads a file that is not its own."""
    kind = draw.choice(["output", "temp"])
    names = [f"{name} [{kind}]" for name in _names_of_others(draw, job_id)]
    name = draw.choice([*names, photo_name(draw.victim), "../output/canary.png", "../.env"])
    graph: dict[str, Any] = {
        "1": {"class_type": draw.choice(["LoadImage", "LoadImageMask"]), "inputs": {"image": name, "channel": "red"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    if draw.random() < 0.3:
        graph["3"] = {"class_type": "PrimitiveString", "inputs": {"value": name}}
        graph["1"]["inputs"]["image"] = ["3", 0]
    return {"graph": graph, "code": "missing_asset"}


def _writer(draw: Draw, job_id: str) -> dict[str, Any]:
    """It writes where another's files are."""
    made = _small(draw, job_id)
    place = draw.choice(["..", f"../{_neighbour(draw, job_id)}", "/tmp", "a/../../somebody"])
    made["graph"]["2"]["inputs"]["filename_prefix"] = f"{place}/canary"
    return {**made, "pictures": (), "code": "invalid_workflow"}


def _references(draw: Draw, job_id: str) -> list[dict[str, str]]:
    """Files of others, as nodes show them."""
    places = [PurePosixPath(name) for name in _names_of_others(draw, job_id)]
    return [
        {"filename": place.name, "subfolder": f"{up}{place.parent}", "type": kind}
        for place in places
        for kind in ("output", "temp", "input")
        for up in ("", "../output/")
    ]


def _names_of_others(draw: Draw, job_id: str) -> list[str]:
    """Of the operator's files, of one that another brings, and of one that a job beside it makes."""
    outputs = [name.removeprefix("output/") for name in CANARIES if name.startswith("output/")]
    beside = _neighbour(draw, job_id)
    return [*outputs, photo_name(draw.victim), f"{JOBS_FOLDER}/{beside}/{draw.choice(_PREFIXES)}_00001_.png"]


def _neighbour(draw: Draw, job_id: str) -> str:
    stem, _, number = job_id.rpartition("-")
    return f"{stem}-{max(0, int(number) + draw.choice([-3, -2, -1, 1, 2, 3])):05d}"


_KINDS: Mapping[Callable[[Draw, str], dict[str, Any]], int] = {
    _small: 30,
    _batch: 6,
    _cached: 8,
    _several: 10,
    _frames: 6,
    _painted: 8,
    _with_input: 12,
    _canceled: 5,
    _too_short: 3,
    _unknown_node: 3,
    _bad_value: 3,
    _node_error: 3,
    _missing_asset: 3,
    _photo: 10,
    _told: 4,
    _saver: 10,
    _echo: 6,
    _thief: 6,
    _writer: 3,
}
_PREFIXES = ("soak", "a/b/soak", "soak_%width%")


def _color(draw: Draw) -> Color:
    return color_of(draw.owner, draw)


def _inverted(color: Color) -> Color:
    return 255 - color[0], 255 - color[1], 255 - color[2]


def _filled(draw: random.Random, color: Color, *, count: int = 1, side: int = 32) -> dict[str, Any]:
    number = color[0] << 16 | color[1] << 8 | color[2]
    inputs = {"width": side, "height": side, "batch_size": count, "color": number}
    prefix = draw.choice(_PREFIXES)
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def _sampled(draw: random.Random, *, steps: int) -> dict[str, Any]:
    sampling = {"steps": steps, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    links = {"model": ["10", 0], "positive": ["11", 0], "negative": ["11", 0], "latent_image": ["12", 0]}
    return {
        "10": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned-emaonly.safetensors"}},
        "11": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["10", 1]}},
        "12": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "13": {"class_type": "KSampler", "inputs": {**sampling, **links, "seed": draw.randrange(1 << 32)}},
        "14": {"class_type": "VAEDecode", "inputs": {"samples": ["13", 0], "vae": ["10", 2]}},
        "15": {"class_type": "SaveImage", "inputs": {"images": ["14", 0], "filename_prefix": "painted"}},
    }
