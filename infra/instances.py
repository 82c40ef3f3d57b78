"""Checks of settings against EC2's GPU instances: how large these are, and whether an environment fits in."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Memory per vCPU of an execution environment. Most GPU instances have the same ratio, so neither is paid for in vain;
#: with less memory per vCPU, an environment would take more vCPUs than it can use.
GIB_PER_VCPU = 4
#: What Lambda reserves on each instance for itself.
RESERVED_VCPUS, RESERVED_GIB = 1, 1
#: GiB per vCPU, and GB per GPU. Other families are not checked.
_FAMILIES = {"g4dn": (4, 16), "g5": (4, 24), "g6": (4, 24), "gr6": (8, 24), "g6e": (8, 48)}
_TYPE = re.compile(r"(?P<family>[a-z][a-z0-9-]*)\.(?:large|(?P<times>[1-9][0-9]?)?xlarge)")


@dataclass(frozen=True, slots=True)
class Environment:
    """What an execution environment takes up on an instance."""

    memory_mb: int
    accelerator_memory_gb: int

    @property
    def vcpus(self) -> int:
        """The vCPUs that come with its memory."""
        return -(-self.memory_mb // (GIB_PER_VCPU * 1024))

    def misfit(self, instance_type: str) -> str | None:
        """Why it does not fit in such an instance; None if it does."""
        has = vcpus(instance_type)
        if self.vcpus + RESERVED_VCPUS > has:
            return (
                f"{instance_type} has {has} vCPUs, {RESERVED_VCPUS} of them for Lambda; "
                f"memory_mb {self.memory_mb} comes with {self.vcpus}"
            )
        family = _FAMILIES.get(instance_type.partition(".")[0])
        if family is None:
            return None
        gib_per_vcpu, gpu_gb = family
        if self.memory_mb > (has * gib_per_vcpu - RESERVED_GIB) * 1024:
            return f"{instance_type} has {has * gib_per_vcpu} GiB; memory_mb is {self.memory_mb}"
        if self.accelerator_memory_gb > gpu_gb:
            return f"GPUs of {instance_type} have {gpu_gb} GB; accelerator_memory_gb is {self.accelerator_memory_gb}"
        return None


def vcpus(instance_type: str) -> int:
    """The vCPUs of an instance, read from its size.

    Raises:
        ValueError: it is not a type such as `g6.2xlarge`, or its name does not say its size.
    """
    match = _TYPE.fullmatch(instance_type)
    if match is None:
        raise ValueError(f"types such as g6.2xlarge, each by its name, not {instance_type!r}")
    if instance_type.endswith(".large"):
        return 2
    return 4 * int(match["times"] or 1)
