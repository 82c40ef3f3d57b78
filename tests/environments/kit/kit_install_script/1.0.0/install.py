import subprocess
import sys
import urllib.request
from pathlib import Path

WEIGHTS = "https://models.example.com/kit/weights.safetensors"

subprocess.check_call([sys.executable, "-m", "pip", "install", "-r", "extra-requirements.txt"])
subprocess.check_call([sys.executable, "-m", "pip", "install", "kit-extra==1.0"])
urllib.request.urlretrieve(WEIGHTS, Path(__file__).parent / "weights.safetensors")
