"""Compression: decompresses untrusted content in bounded memory, and compresses bare layers.

formats                formats by their first bytes, and what unpacks those that are not read
detection              the right decompressor for how a stream begins
decompressor           what all decompressors have in common, and gzip
zstd, bzip2_xz_lz4     the others
compressors            gzip and zstd for bare layers, the same bytes on every machine
"""
