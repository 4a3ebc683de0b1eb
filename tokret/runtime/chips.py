"""What accelerators are published to do: memory, peak rate, bandwidth.

TPUs: the specification table of each one's page in Google's documentation,
https://docs.cloud.google.com/tpu/docs/ v4, v5e, v5p, v6e. NVIDIA: the data sheets of
A100 (https://www.nvidia.com/en-us/data-center/a100/), H100 (.../h100/) and H200
(.../h200/); their peaks with sparsity are halved, since nothing here is sparse.
"""

from typing import NamedTuple

GIB = 2**30


class Chip(NamedTuple):
    """An accelerator's published figures."""

    name: str
    memory: int  # bytes; printed as GB, they are GiB
    peak: float  # FLOP/s of dense products in bfloat16
    bandwidth: float  # bytes/s of its memory


V4 = Chip("v4", 32 * GIB, 275e12, 1200e9)
V5E = Chip("v5e", 16 * GIB, 197e12, 819e9)
V5P = Chip("v5p", 95 * GIB, 459e12, 2765e9)
V6E = Chip("v6e", 32 * GIB, 918e12, 1638e9)
A100_40 = Chip("A100 40 GB", 40 * GIB, 312e12, 1555e9)

# By jax.Device.device_kind. A slice of a GPU (MIG) has a kind of its own: not known.
CHIPS = {
    "TPU v4": V4,
    "TPU v5 lite": V5E,
    "TPU v5e": V5E,
    "TPU v5": V5P,
    "TPU v5p": V5P,
    "TPU v6 lite": V6E,
    "TPU v6e": V6E,
    "NVIDIA A100-SXM4-40GB": A100_40,
    "NVIDIA A100-PCIE-40GB": A100_40,
    "NVIDIA A100 80GB PCIe": Chip("A100 80 GB PCIe", 80 * GIB, 312e12, 1935e9),
    "NVIDIA A100-SXM4-80GB": Chip("A100 80 GB", 80 * GIB, 312e12, 2039e9),
    "NVIDIA H100 PCIe": Chip("H100 PCIe", 80 * GIB, 756e12, 2000e9),
    "NVIDIA H100 80GB HBM3": Chip("H100", 80 * GIB, 989e12, 3350e9),
    "NVIDIA H200": Chip("H200", 141 * GIB, 989e12, 4800e9),
}
