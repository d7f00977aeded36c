"""The distribution-spec's endpoints of one repository."""
