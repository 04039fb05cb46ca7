"""A job: what is to be labelled, by whom, and how it is carried through."""
