"""What the targets say: tags, content, audits of what earlier runs put, and verification."""
