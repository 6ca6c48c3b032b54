"""How far the model-based tests search: little in CI, as far as one likes by hand.

BRIDGE_MODEL_EXAMPLES=5000 pytest tests -k model     # so many runs of each machine, other ones every time
"""

import os

from hypothesis import HealthCheck, settings

_WANTED = os.environ.get("BRIDGE_MODEL_EXAMPLES")

MODEL_TIMEOUT_S = 0 if _WANTED else 600
"""A red run is made smaller before it is shown, which takes its time; what was asked for by hand may take any."""


def model_settings(*, examples: int, steps: int) -> settings:
    """Settings of a state machine.

    Args:
        examples: how many runs there are unless `BRIDGE_MODEL_EXAMPLES` says otherwise; then they are random, and a
            red one is reproduced by the blob that hypothesis prints.
        steps: most steps of a run.
    """
    return settings(
        max_examples=int(_WANTED) if _WANTED else examples,
        stateful_step_count=steps,
        derandomize=not _WANTED,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
