"""The endpoints of one repository, by the distribution-spec."""
