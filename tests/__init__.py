"""The promises of the bridge, as tests. A package only so that `tests.…` never means somebody else's."""
