"""An image's root file system: its layers applied in order, as one tree (image-spec layer.md).

layer_reader   what one layer says, entry by entry
tree           what all of them come to: whiteouts, opaque folders, hard links. Pure
unpack         that tree in a folder
tarball        that tree as one tar

Layers are read twice: once for what the tree is and whether they are what the config says, once for the
content of what is left of them. So nothing is written of an image that is not right, each file is written
once and nothing is ever removed again; and since a tree has no path that leads through a symbolic link, what
is written can't leave its place.
"""

from blobflow.transports.rootfs.layer_reader import Layer, read_tree
from blobflow.transports.rootfs.tarball import write_tar
from blobflow.transports.rootfs.tree import FileTree, apply_layers
from blobflow.transports.rootfs.unpack import Unpacked, check_empty, temporary_folder, unpack

__all__ = [
    "FileTree",
    "Layer",
    "Unpacked",
    "apply_layers",
    "check_empty",
    "read_tree",
    "temporary_folder",
    "unpack",
    "write_tar",
]
