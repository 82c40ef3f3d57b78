"""Writes models with random weights, so that text-to-image graphs run for real on a processor, in a second.

`python -m tests.contract.tiny_models MODELS` writes below ComfyUI's folder of models, unless they are there:

    checkpoints/v1-5-pruned-emaonly.safetensors       in the form of Stable Diffusion 1.5 (155 MB)
    vae_approx/taesd_{encoder,decoder}.safetensors    for previews by TAESD, and as a VAE

What ComfyUI asks of a checkpoint decides what is small here. Its UNet has one level of 320 channels, one block and no
middle. Its CLIP must have every key in full size, but may have the matrices as numbers of one byte. Its VAE is a TAESD.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHECKPOINT = "checkpoints/v1-5-pruned-emaonly.safetensors"
_CHANNELS, _CONTEXT, _EMBEDDING = 320, 768, 1280
_CLIP_WIDTH, _CLIP_INNER, _CLIP_LAYERS, _CLIP_TOKENS, _CLIP_LENGTH = 768, 3072, 12, 49408, 77
_TAESD_CHANNELS, _LATENT_CHANNELS, _LEVELS = 64, 4, 3
#: Wide types come first, so that all are aligned.
_ORDER = ("F32", "F16", "F8_E4M3")


class Weights:
    """Named tensors of random or constant numbers, written as safetensors."""

    def __init__(self, seed: int, *, is_half: bool = True) -> None:
        self._random = np.random.default_rng(seed)
        self._dtype = "F16" if is_half else "F32"
        self._type: type[np.floating[Any]] = np.float16 if is_half else np.float32
        self._tensors: dict[str, tuple[str, tuple[int, ...], bytes]] = {}

    def _put(self, name: str, numbers: NDArray[np.generic]) -> None:
        self._tensors[name] = (self._dtype, numbers.shape, numbers.astype(self._type).tobytes())

    def constant(self, name: str, shape: tuple[int, ...], value: float) -> None:
        self._put(name, np.full(shape, value))

    def normal(self, name: str, shape: tuple[int, ...], deviation: float) -> None:
        self._put(name, self._random.standard_normal(shape, dtype=np.float32) * deviation)

    def small_bytes(self, name: str, shape: tuple[int, ...]) -> None:
        """Numbers of one byte, all of them small: without the upper bits of their exponent."""
        numbers = self._random.integers(0, 256, int(np.prod(shape)), dtype=np.uint8) & 0x8F
        self._tensors[name] = ("F8_E4M3", shape, numbers.tobytes())

    def convolution(
        self, name: str, *, to: int, of: int, size: int = 3, gain: float = 1.0, has_bias: bool = True
    ) -> None:
        self.normal(f"{name}.weight", (to, of, size, size), gain / float(np.sqrt(of * size * size)))
        if has_bias:
            self.constant(f"{name}.bias", (to,), 0)

    def linear(self, name: str, *, to: int, of: int, gain: float = 1.0, has_bias: bool = True) -> None:
        self.normal(f"{name}.weight", (to, of), gain / float(np.sqrt(of)))
        if has_bias:
            self.constant(f"{name}.bias", (to,), 0)

    def norm(self, name: str, width: int) -> None:
        self.constant(f"{name}.weight", (width,), 1)
        self.constant(f"{name}.bias", (width,), 0)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        names = sorted(self._tensors, key=lambda name: (_ORDER.index(self._tensors[name][0]), name))
        header: dict[str, object] = {"__metadata__": {"modelspec.title": "tiny random test checkpoint"}}
        end = 0
        for name in names:
            dtype, shape, content = self._tensors[name]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end := end + len(content)]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.writelines(self._tensors[name][2] for name in names)
        unfinished.replace(path)


def _residual(weights: Weights, name: str, *, to: int, of: int) -> None:
    weights.norm(f"{name}.in_layers.0", of)
    weights.convolution(f"{name}.in_layers.2", to=to, of=of)
    weights.linear(f"{name}.emb_layers.1", to=to, of=_EMBEDDING)
    weights.norm(f"{name}.out_layers.0", to)
    weights.convolution(f"{name}.out_layers.3", to=to, of=to, gain=0.3)
    if of != to:
        weights.convolution(f"{name}.skip_connection", to=to, of=of, size=1)


def _transformer(weights: Weights, name: str, width: int) -> None:
    weights.norm(f"{name}.norm", width)
    weights.convolution(f"{name}.proj_in", to=width, of=width, size=1)
    block = f"{name}.transformer_blocks.0"
    for attention, context in (("attn1", width), ("attn2", _CONTEXT)):
        weights.linear(f"{block}.{attention}.to_q", to=width, of=width, has_bias=False)
        weights.linear(f"{block}.{attention}.to_k", to=width, of=context, has_bias=False)
        weights.linear(f"{block}.{attention}.to_v", to=width, of=context, has_bias=False)
        weights.linear(f"{block}.{attention}.to_out.0", to=width, of=width, gain=0.5)
    weights.linear(f"{block}.ff.net.0.proj", to=8 * width, of=width)
    weights.linear(f"{block}.ff.net.2", to=width, of=4 * width, gain=0.5)
    for number in (1, 2, 3):
        weights.norm(f"{block}.norm{number}", width)
    weights.convolution(f"{name}.proj_out", to=width, of=width, size=1, gain=0.3)


def _unet(weights: Weights, name: str) -> None:
    width = _CHANNELS
    weights.linear(f"{name}.time_embed.0", to=4 * width, of=width)
    weights.linear(f"{name}.time_embed.2", to=4 * width, of=4 * width)
    weights.convolution(f"{name}.input_blocks.0.0", to=width, of=_LATENT_CHANNELS)
    _residual(weights, f"{name}.input_blocks.1.0", to=width, of=width)
    _transformer(weights, f"{name}.input_blocks.1.1", width)
    _residual(weights, f"{name}.output_blocks.0.0", to=width, of=2 * width)
    _residual(weights, f"{name}.output_blocks.1.0", to=width, of=2 * width)
    weights.norm(f"{name}.out.0", width)
    weights.convolution(f"{name}.out.2", to=_LATENT_CHANNELS, of=width, gain=0.5)


def _clip(weights: Weights, name: str) -> None:
    width, inner = _CLIP_WIDTH, _CLIP_INNER
    weights.small_bytes(f"{name}.embeddings.token_embedding.weight", (_CLIP_TOKENS, width))
    weights.small_bytes(f"{name}.embeddings.position_embedding.weight", (_CLIP_LENGTH, width))
    for number in range(_CLIP_LAYERS):
        layer = f"{name}.encoder.layers.{number}"
        weights.norm(f"{layer}.layer_norm1", width)
        weights.norm(f"{layer}.layer_norm2", width)
        shapes = {f"self_attn.{matrix}_proj": (width, width) for matrix in ("q", "k", "v", "out")}
        for matrix, shape in {**shapes, "mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}.items():
            weights.small_bytes(f"{layer}.{matrix}.weight", shape)
            weights.constant(f"{layer}.{matrix}.bias", shape[:1], 0)
    weights.norm(f"{name}.final_layer_norm", width)


def _taesd_block(weights: Weights, name: str) -> None:
    width = _TAESD_CHANNELS
    for number, gain in ((0, 1.2), (2, 1.2), (4, 0.6)):
        weights.convolution(f"{name}.conv.{number}", to=width, of=width, gain=gain)


def _taesd_encoder(weights: Weights, prefix: str) -> None:
    width = _TAESD_CHANNELS
    weights.convolution(f"{prefix}0", to=width, of=3)
    _taesd_block(weights, f"{prefix}1")
    at = 2
    for _ in range(_LEVELS):
        weights.convolution(f"{prefix}{at}", to=width, of=width, has_bias=False)
        for number in range(at + 1, at + 4):
            _taesd_block(weights, f"{prefix}{number}")
        at += 4
    weights.convolution(f"{prefix}{at}", to=_LATENT_CHANNELS, of=width)


def _taesd_decoder(weights: Weights, prefix: str) -> None:
    width = _TAESD_CHANNELS
    weights.convolution(f"{prefix}1", to=width, of=_LATENT_CHANNELS)
    at = 3  # 0 and 2 are without weights, and so is each one that enlarges
    for _ in range(_LEVELS):
        for number in range(at, at + 3):
            _taesd_block(weights, f"{prefix}{number}")
        weights.convolution(f"{prefix}{at + 4}", to=width, of=width, has_bias=False)
        at += 5
    _taesd_block(weights, f"{prefix}{at}")
    # Small, around the middle, so that no picture is cut off at black and white.
    weights.convolution(f"{prefix}{at + 1}", to=3, of=width, gain=0.1, has_bias=False)
    weights.constant(f"{prefix}{at + 1}.bias", (3,), 0.5)


def _checkpoint() -> Weights:
    weights = Weights(0)
    _unet(weights, "model.diffusion_model")
    _clip(weights, "cond_stage_model.transformer.text_model")
    _taesd_encoder(weights, "first_stage_model.taesd_encoder.")
    _taesd_decoder(weights, "first_stage_model.taesd_decoder.")
    weights.constant("first_stage_model.vae_scale", (), 1)
    weights.constant("first_stage_model.vae_shift", (), 0)
    return weights


def _alone(fill: Callable[[Weights, str], None]) -> Weights:
    weights = Weights(1, is_half=False)
    fill(weights, "")
    return weights


MODELS: dict[str, Callable[[], Weights]] = {
    CHECKPOINT: _checkpoint,
    "vae_approx/taesd_encoder.safetensors": lambda: _alone(_taesd_encoder),
    "vae_approx/taesd_decoder.safetensors": lambda: _alone(_taesd_decoder),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="ComfyUI's folder of models")
    folder = parser.parse_args().models
    for name, make in MODELS.items():
        if not (folder / name).exists():
            make().save(folder / name)
            print(folder / name)


if __name__ == "__main__":
    main()
