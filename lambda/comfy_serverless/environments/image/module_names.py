"""Names that differ: of a module and the library that has it, of a shared library and the package of Debian.

Facts of PyPI and of Debian 12, for the libraries that packs of ComfyUI use most. What is not here is looked up by rule.
"""

from __future__ import annotations

import re
from typing import Final


def _pairs(text: str) -> dict[str, str]:
    """`{"a": "b"}` of `a=b`, with blanks between them."""
    return dict(pair.split("=", 1) for pair in text.split())


#: The library that has a module of another name.
LIBRARIES: Final = _pairs(
    """
    cv2=opencv-python-headless PIL=pillow yaml=pyyaml skimage=scikit-image sklearn=scikit-learn bs4=beautifulsoup4
    git=gitpython dotenv=python-dotenv dateutil=python-dateutil Crypto=pycryptodome fitz=pymupdf docx=python-docx
    OpenGL=pyopengl magic=python-magic serial=pyserial jwt=pyjwt attr=attrs pkg_resources=setuptools<81
    google.generativeai=google-generativeai google.protobuf=protobuf google.cloud=google-cloud-storage
    pytorch_lightning=pytorch-lightning segment_anything=segment-anything llama_cpp=llama-cpp-python
    flash_attn=flash-attn moviepy.editor=moviepy<2 ffmpeg=ffmpeg-python clip_interrogator=clip-interrogator
    color_matcher=color-matcher pywt=pywavelets Levenshtein=levenshtein slugify=python-slugify socks=pysocks
    usb=pyusb zmq=pyzmq cairo=pycairo win32api=pywin32 multipart=python-multipart websocket=websocket-client
    nacl=pynacl pynvml=nvidia-ml-py open_clip=open-clip-torch clip=openai-clip
    sentence_transformers=sentence-transformers torch_scatter=torch-scatter
    simple_lama_inpainting=simple-lama-inpainting
    Cryptodome=pycryptodomex OpenSSL=pyopenssl ruamel=ruamel.yaml pptx=python-pptx faiss=faiss-cpu
    whisper=openai-whisper mpl_toolkits=matplotlib skvideo=scikit-video wx=wxpython gi=pygobject Xlib=python-xlib
    groundingdino=groundingdino-py dns=dnspython discord=discord.py jose=python-jose telegram=python-telegram-bot
    """
)

#: Libraries that have the same module: one of them is enough, and two are in each other's way.
ONE_OF: Final = (
    frozenset({"opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"}),
    frozenset({"onnxruntime", "onnxruntime-gpu"}),
    frozenset({"pillow", "pillow-simd"}),
    frozenset({"pynvml", "nvidia-ml-py"}),
)

#: Modules of Python's own that Debian has in packages of their own.
DEBIAN_MODULES: Final = _pairs(
    """
    tkinter=python3-tk _tkinter=python3-tk distutils=python3-distutils ensurepip=python3-venv
    lib2to3=python3-lib2to3 idlelib=idle-python3.11
    """
)

#: Modules that only Windows or macOS have.
ELSEWHERE: Final = frozenset(
    {
        "winreg",
        "_winapi",
        "msvcrt",
        "winsound",
        "win32api",
        "win32con",
        "win32gui",
        "pythoncom",
        "wmi",
        "AppKit",
        "objc",
    }
)

#: ComfyUI's own modules: if one is missing, or has not what a pack asks for, the pack was written for another ComfyUI.
COMFYUI: Final = frozenset(
    {"comfy", "comfy_api", "comfy_api_nodes", "comfy_config", "comfy_execution", "comfy_extras", "app", "api_server"}
    | {
        "folder_paths",
        "nodes",
        "execution",
        "server",
        "node_helpers",
        "latent_preview",
        "cuda_malloc",
        "comfyui_version",
    }
)

_SHARED: Final = _pairs(
    """
    libGL.so.1=libgl1 libEGL.so.1=libegl1 libGLESv2.so.2=libgles2 libOpenGL.so.0=libopengl0
    libglib-2.0.so.0=libglib2.0-0 libgthread-2.0.so.0=libglib2.0-0 libgobject-2.0.so.0=libglib2.0-0
    libX11.so.6=libx11-6 libxcb.so.1=libxcb1 libXxf86vm.so.1=libxxf86vm1 libGLU.so.1=libglu1-mesa
    libOSMesa.so.8=libosmesa6 libsndfile.so=libsndfile1 libsndfile.so.1=libsndfile1 libmagic.so.1=libmagic1
    libcairo.so.2=libcairo2 libgomp.so.1=libgomp1 libvips.so.42=libvips42 libtk8.6.so=libtk8.6
    libtcl8.6.so=libtcl8.6 libzbar.so.0=libzbar0 libespeak-ng.so.1=libespeak-ng1 libpango-1.0.so.0=libpango-1.0-0
    libjpeg.so.62=libjpeg62-turbo libgdk_pixbuf-2.0.so.0=libgdk-pixbuf-2.0-0
    """
)
_MEDIA: Final = re.compile(r"lib(?:avcodec|avformat|avutil|avdevice|avfilter|swscale|swresample|postproc)\.so")

#: Packages of Debian that have a program.
PROGRAMS: Final = _pairs(
    """
    ffmpeg=ffmpeg ffprobe=ffmpeg git=git exiftool=libimage-exiftool-perl convert=imagemagick magick=imagemagick
    wget=wget curl=curl espeak=espeak-ng tesseract=tesseract-ocr sox=sox blender=blender xvfb-run=xvfb Xvfb=xvfb
    fc-list=fontconfig aria2c=aria2 unzip=unzip rsvg-convert=librsvg2-bin inkscape=inkscape node=nodejs
    pandoc=pandoc
    """
)
#: Programs that make others; gcc and g++ are in the image.
COMPILERS: Final = frozenset(
    {"nvcc", "gcc", "g++", "cc", "c++", "clang", "cmake", "ninja", "make", "cl", "cargo", "rustc"}
)


def library_of(module: str) -> str:
    """The library of PyPI that most likely has a module (`a.b.c`), by its name in an index."""
    parts = module.split(".")
    for count in range(len(parts), 0, -1):
        if found := LIBRARIES.get(".".join(parts[:count])):
            return found
    return parts[0].replace("_", "-").lower()


def debian_of(shared_library: str) -> str | None:
    """The package of Debian that has a shared library (`libGL.so.1`); by Debian's rule where it is not known."""
    if found := _SHARED.get(shared_library):
        return found
    if _MEDIA.match(shared_library):
        return "ffmpeg"
    parts = re.fullmatch(r"(lib[\w+.-]+?)(?:-(\d[\d.]*))?\.so(?:\.(\d+)[\d.]*)?", shared_library)
    if parts is None:
        return None
    name, inner, number = parts[1].lower().replace("_", "-"), parts[2] or "", parts[3] or ""
    stem = f"{name}{inner}"
    return f"{stem}-{number}" if stem[-1].isdigit() and number else f"{stem}{number}"


def normal(name: str) -> str:
    """The name of a library as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def same_module(library: str) -> frozenset[str]:
    """A library, and those that have the same module."""
    name = normal(re.split(r"[^A-Za-z0-9._-]", library, maxsplit=1)[0])
    return next((group for group in ONE_OF if name in group), frozenset({name}))
