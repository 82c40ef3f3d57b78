"""The text-to-image stand-in: graphs for Stable Diffusion run, with progress and previews, but without a model.

A sampler takes its steps, and `VAEDecode` returns a landscape that text, seed, size and steps determine and that says
on its face what it is. It stands in for the model, never for its result.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from comfy_lite.node import InputSpec, NodeContext, NodeResult, NodeType, Pixels
from comfy_lite.nodes.declare import MAX_SIZE, batch_size
from comfy_lite.nodes.painting import Motif, paint, signed, static
from comfy_lite.nodes.pixels import to_pillow

#: Names that workflows ask for, without files behind them.
CHECKPOINTS = (
    "dreamshaper_8.safetensors",
    "realisticVisionV60B1_v51VAE.safetensors",
    "sd_xl_base_1.0.safetensors",
    "sd_xl_refiner_1.0.safetensors",
    "sd_xl_turbo_1.0_fp16.safetensors",
    "v1-5-pruned-emaonly-fp16.safetensors",
    "v1-5-pruned-emaonly.ckpt",
    "v1-5-pruned-emaonly.safetensors",
    "v2-1_768-ema-pruned.safetensors",
)
SAMPLERS = (
    *("euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", "heun", "heunpp2", "dpm_2"),
    *("dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp"),
    *("dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m", "dpmpp_2m_cfg_pp", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu"),
    *("dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm", "lcm", "ipndm"),
    *("ipndm_v", "deis", "res_multistep", "res_multistep_cfg_pp", "res_multistep_ancestral"),
    *("res_multistep_ancestral_cfg_pp", "gradient_estimation", "gradient_estimation_cfg_pp", "er_sde", "seeds_2"),
    *("seeds_3", "sa_solver", "sa_solver_pece", "ddim", "uni_pc", "uni_pc_bh2"),
)
#: Those that later releases have, too.
LATER_SAMPLERS = ("exp_heun_2_x0", "exp_heun_2_x0_sde")
SCHEDULERS = (
    *("simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal", "linear_quadratic"),
    "kl_optimal",
)

#: Pixels per latent pixel.
_LATENT_SCALE = 8
_GREY = np.float32(0.5)


@dataclass(frozen=True, slots=True)
class Model:
    """Stands for the MODEL, CLIP and VAE of a checkpoint. It is only a name."""

    name: str


@dataclass(frozen=True, slots=True)
class Conditioning:
    """A prompt as text."""

    text: str


@dataclass(frozen=True, slots=True)
class Latent:
    """The pictures a latent batch stands for (batch, height, width, 3), and the motif that they were painted from."""

    pixels: Pixels
    motif: Motif | None = None


def _load_checkpoint(_: NodeContext, *, ckpt_name: str) -> NodeResult:
    model = Model(ckpt_name)
    return NodeResult((model, model, model))


def _encode_text(_: NodeContext, *, text: str, clip: Model) -> NodeResult:  # noqa: ARG001 - the node's inputs
    return NodeResult((Conditioning(text),))


def _empty_latent(_: NodeContext, *, width: int, height: int, batch_size: int) -> NodeResult:
    shape = (batch_size, height - height % _LATENT_SCALE, width - width % _LATENT_SCALE, 3)
    return NodeResult((Latent(np.broadcast_to(_GREY, shape)),))


def _k_sampler(
    context: NodeContext,
    *,
    seed: int,
    steps: int,
    positive: Conditioning,
    latent_image: Latent,
    denoise: float,
    **_: object,
) -> NodeResult:
    count = steps if denoise > 0 else 0
    motif = Motif(positive.text, seed, steps)
    return NodeResult((_sampled(context, latent_image, motif, count=count, strength=denoise),))


def _k_sampler_advanced(
    context: NodeContext,
    *,
    noise_seed: int,
    steps: int,
    positive: Conditioning,
    latent_image: Latent,
    start_at_step: int,
    end_at_step: int,
    **_: object,
) -> NodeResult:
    count = max(min(end_at_step, steps) - start_at_step, 0)
    motif = Motif(positive.text, noise_seed, steps)
    return NodeResult((_sampled(context, latent_image, motif, count=count, strength=count / steps),))


def _sampled(context: NodeContext, latent: Latent, motif: Motif, *, count: int, strength: float) -> Latent:
    """Take `count` steps. The weaker the sampling, the more of the latent's old content stays."""
    if not count:
        return latent
    batch, height, width, _ = latent.pixels.shape
    small = (max(width // _LATENT_SCALE, 1), max(height // _LATENT_SCALE, 1))
    preview, noise = paint(motif, *small), static(motif, *small)
    for step in range(count):
        time.sleep(context.step_s)
        noisiness = 1 - (step + 1) / count
        shown = preview + (noise - preview) * np.float32(noisiness)
        context.report_progress(step + 1, count, to_pillow(shown))
    # Each picture of a batch has its own noise, and therefore its own painting.
    painted = np.stack(
        [paint(Motif(motif.text, motif.seed + index, motif.steps), width, height) for index in range(batch)]
    )
    return Latent(latent.pixels + (painted - latent.pixels) * np.float32(strength), motif)


def _decode(_: NodeContext, *, samples: Latent, vae: Model) -> NodeResult:  # noqa: ARG001 - the node's inputs
    lines: tuple[str, ...] = ()
    if samples.motif is not None:
        lines = (samples.motif.text, f"seed {samples.motif.seed}, {samples.motif.steps} steps")
    return NodeResult((np.stack([signed(image, lines) for image in samples.pixels]),))


def _encode(_: NodeContext, *, pixels: Pixels, vae: Model) -> NodeResult:  # noqa: ARG001 - the node's inputs
    """Cut to multiples of 8 around the middle, as a real VAE requires."""
    spare_y, spare_x = pixels.shape[1] % _LATENT_SCALE, pixels.shape[2] % _LATENT_SCALE
    rows = slice(spare_y // 2, pixels.shape[1] - spare_y + spare_y // 2)
    columns = slice(spare_x // 2, pixels.shape[2] - spare_x + spare_x // 2)
    return NodeResult((Latent(pixels[:, rows, columns, :3]),))


def _seed() -> InputSpec:
    return ("INT", {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF, "control_after_generate": True})


def _latent_side() -> InputSpec:
    return ("INT", {"default": 512, "min": 16, "max": MAX_SIZE, "step": _LATENT_SCALE})


_STEPS: InputSpec = ("INT", {"default": 20, "min": 1, "max": 10000})
_CFG: InputSpec = ("FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01})

NODES = (
    NodeType(
        class_type="CheckpointLoaderSimple",
        display_name="Load Checkpoint",
        category="loaders",
        execute=_load_checkpoint,
        required=lambda directories: {
            "ckpt_name": ([*CHECKPOINTS, *(set(directories.model_files("checkpoints")) - set(CHECKPOINTS))], {})
        },
        returns=("MODEL", "CLIP", "VAE"),
    ),
    NodeType(
        class_type="CLIPTextEncode",
        display_name="CLIP Text Encode (Prompt)",
        category="conditioning",
        execute=_encode_text,
        required={"text": ("STRING", {"multiline": True, "dynamicPrompts": True}), "clip": ("CLIP", {})},
        returns=("CONDITIONING",),
    ),
    NodeType(
        class_type="EmptyLatentImage",
        display_name="Empty Latent Image",
        category="latent",
        execute=_empty_latent,
        required={"width": _latent_side(), "height": _latent_side(), "batch_size": batch_size()},
        returns=("LATENT",),
    ),
    NodeType(
        class_type="KSampler",
        display_name="KSampler",
        category="sampling",
        execute=_k_sampler,
        required={
            "model": ("MODEL", {}),
            "seed": _seed(),
            "steps": _STEPS,
            "cfg": _CFG,
            "sampler_name": (list(SAMPLERS), {}),
            "scheduler": (list(SCHEDULERS), {}),
            "positive": ("CONDITIONING", {}),
            "negative": ("CONDITIONING", {}),
            "latent_image": ("LATENT", {}),
            "denoise": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
        },
        returns=("LATENT",),
    ),
    NodeType(
        class_type="KSamplerAdvanced",
        display_name="KSampler (Advanced)",
        category="sampling",
        execute=_k_sampler_advanced,
        required={
            "model": ("MODEL",),
            "add_noise": (["enable", "disable"],),
            "noise_seed": _seed(),
            "steps": _STEPS,
            "cfg": _CFG,
            "sampler_name": (list(SAMPLERS),),
            "scheduler": (list(SCHEDULERS),),
            "positive": ("CONDITIONING",),
            "negative": ("CONDITIONING",),
            "latent_image": ("LATENT",),
            "start_at_step": ("INT", {"default": 0, "min": 0, "max": 10000}),
            "end_at_step": ("INT", {"default": 10000, "min": 0, "max": 10000}),
            "return_with_leftover_noise": (["disable", "enable"],),
        },
        returns=("LATENT",),
    ),
    NodeType(
        class_type="VAEDecode",
        display_name="VAE Decode",
        category="latent",
        execute=_decode,
        required={"samples": ("LATENT", {}), "vae": ("VAE", {})},
        returns=("IMAGE",),
    ),
    NodeType(
        class_type="VAEEncode",
        display_name="VAE Encode",
        category="latent",
        execute=_encode,
        required={"pixels": ("IMAGE",), "vae": ("VAE",)},
        returns=("LATENT",),
    ),
)
