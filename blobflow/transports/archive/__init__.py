"""`oci-archive:FILE` and `docker-archive:FILE`: images in a tar, read and written.

tar, streams          what an archive is made of: entries, and bytes in order
contents, importing   what it holds, and bringing that into the store where it can't stay
codecs                how bare layers are compressed; what is compressed is read by `transports.compression`
catalogue, docker     manifest.json and `repositories`; the manifests that are made of configs and layers
images, kind          the images of either kind; telling which kind it is
opened, source        an archive as a Source
sink                  an archive as a Sink: OCI layout and docker's manifest.json in one
"""

from blobflow.oci.media import CompressMode
from blobflow.transports.archive.detection import detect_transport
from blobflow.transports.archive.importer import Importer
from blobflow.transports.archive.parts import numbered_parts, part_path
from blobflow.transports.archive.sink import ArchiveSink
from blobflow.transports.archive.source import ArchiveSource
from blobflow.transports.compression.compressors import codec

__all__ = [
    "ArchiveSource",
    "ArchiveSink",
    "CompressMode",
    "Importer",
    "codec",
    "detect_transport",
    "numbered_parts",
    "part_path",
]
