"""The ComfyUI releases that this engine speaks as, and where their interfaces differ.

Each difference is a question that says since when it is so. What `/history`, `/queue`, `/prompt` and the messages look
like was recorded from both (tests/contract/recordings); the releases in between were not tried.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Release:
    """One release: its number, and what it does."""

    version: str

    @property
    def dates_prompts(self) -> bool:
        """`extra_data.create_time` says when a prompt came, in milliseconds."""
        return self._since(0, 3, 69)

    @property
    def drops_after_success(self) -> bool:
        """What a prompt does not need is dropped when it has succeeded, and not before it runs."""
        return self._since(0, 3, 68)

    @property
    def shows_only_what_ran(self) -> bool:
        """The history has the outputs of the run, and none of cached nodes that it did not ask for."""
        return self._since(0, 3, 68)

    @property
    def names_its_system(self) -> bool:
        """`system.os` is Python's `sys.platform`, not `os.name`."""
        return self._since(0, 4, 0)

    @property
    def takes_preview_methods(self) -> bool:
        """`extra_data.preview_method` says whether this prompt has previews."""
        return self._since(0, 5, 0)

    @property
    def hides_keys_in_the_queue(self) -> bool:
        """Keys for partner nodes are missing in `/queue`, not only in the history."""
        return self._since(0, 6, 0)

    @property
    def names_missing_nodes(self) -> bool:
        """An unknown class is `missing_node_type`, with the node's id, class and title."""
        return self._since(0, 12, 0)

    @property
    def refuses_other_sites(self) -> bool:
        """A request that a browser marks as another site's is refused with 403."""
        return self._since(0, 19, 0)

    @property
    def names_cycles(self) -> bool:
        """Nodes that wait for each other are told as `dependency_cycle`, with the way around."""
        return self._since(0, 20, 0)

    @property
    def needs_uuids(self) -> bool:
        """A prompt's id must be a UUID in its canonical form."""
        return self._since(0, 25, 0)

    @property
    def cancels_jobs(self) -> bool:
        """`POST /api/jobs/{id}/cancel` ends a running prompt and drops a waiting one."""
        return self._since(0, 26, 0)

    @property
    def guards_downloads(self) -> bool:
        """`/view` sends what a browser would execute as an attachment."""
        return self._since(0, 28, 0)

    @property
    def has_more_folders(self) -> bool:
        """Models for detection, backgrounds, frames, depth and motion have folders of their own. (Seen in 0.33.0.)"""
        return self._since(0, 33, 0)

    @property
    def renews_nodes(self) -> bool:
        """The nodes are declared anew, and those that save give on their images. (Seen in 0.33.0.)"""
        return self._since(0, 33, 0)

    @property
    def checks_every_choice(self) -> bool:
        """What is none of an input's choices is refused in the nodes' newer (V3) form, too. (Seen in 0.33.0.)"""
        return self._since(0, 33, 0)

    @property
    def names_its_packages(self) -> bool:
        """`/system_stats` lists ComfyUI's own packages, and how it was installed. (Seen in 0.33.0.)"""
        return self._since(0, 33, 0)

    @property
    def reads_nodes_strictly(self) -> bool:
        """A prompt that is no mapping of nodes, each with its inputs, ends in a 500 more often. (Seen in 0.33.0.)"""
        return self._since(0, 33, 0)

    def _since(self, *version: int) -> bool:
        return tuple(int(part) for part in self.version.split(".")) >= version


#: Those whose conversations were recorded, newest first. The first is what the worker's image has.
RELEASES = (Release("0.33.0"), Release("0.3.64"))
NEWEST = RELEASES[0]
