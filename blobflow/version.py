"""The version of blobflow, and how it calls itself to registries."""

__version__ = "0.1.0"

USER_AGENT = f"blobflow/{__version__}"
