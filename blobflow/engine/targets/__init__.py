"""Questions to the targets: their tags and content, audits of what earlier runs put, and verification."""
