"""The version of blobflow, and its User-Agent."""

__version__ = "0.1.0"

USER_AGENT = f"blobflow/{__version__}"
