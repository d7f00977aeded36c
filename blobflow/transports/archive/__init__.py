"""`oci-archive:FILE` and `docker-archive:FILE`: images in a tar, read and written.

archives                        the archives of one run
source, open_archive, images    an archive as a Source: its images, OCI's and docker's
sink, parts, tar_writer         an archive as a Sink: an OCI layout and docker's manifest.json in one tar
detection                       which kind an archive is
manifest_json, docker_manifest  docker's list of images; the manifests that are made of configs and layers
contents, importer              what an archive holds, and bringing it into the store where it can't stay
tar_reader, tar_input           the entries of a tar, and where its bytes come from
"""

from blobflow.oci.media import CompressMode
from blobflow.transports.archive.archives import Archives
from blobflow.transports.archive.detection import detect_transport
from blobflow.transports.archive.importer import Importer
from blobflow.transports.archive.parts import BundleFiles, files_of_bundle, part_path
from blobflow.transports.archive.sink import ArchiveSink
from blobflow.transports.archive.source import ArchiveSource
from blobflow.transports.compression.compressors import codec

__all__ = [
    "ArchiveSink",
    "ArchiveSource",
    "Archives",
    "BundleFiles",
    "CompressMode",
    "Importer",
    "codec",
    "detect_transport",
    "files_of_bundle",
    "part_path",
]
