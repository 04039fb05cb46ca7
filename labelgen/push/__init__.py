"""Sharing a dataset on a hub: what goes there, the search for secrets, the upload, and the check at the other end."""
