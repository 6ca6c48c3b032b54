"""Everything at once: plans of faults on three brokers and all roles, drawn from seeds.

make crash SEEDS=20                                     twenty plans of a minute each
BRIDGE_CRASH_SEED=4711 BRIDGE_CRASH_SEEDS=1 pytest tests/crash/test_plans.py    that one again
"""

import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.crash.cluster import Cluster
from tests.crash.plan import in_short, run_plan

SEED = int(os.environ.get("BRIDGE_CRASH_SEED") or secrets.randbits(16))
SEEDS = int(os.environ.get("BRIDGE_CRASH_SEEDS") or 3)
PLAN_S = float(os.environ.get("BRIDGE_CRASH_PLAN_S") or 20)

pytestmark = pytest.mark.apache


@pytest.mark.timeout(0)  # every wait in here has a time-out of its own
@pytest.mark.parametrize("number", range(SEEDS))
def test_nothing_is_lost_or_paid_twice_whatever_goes_wrong_at_once(number: int, cluster: Cluster) -> None:
    """Two workers, two forwarders, an API; what a failure says names the seed and where all logs lie."""
    seed = SEED + number
    sys.stdout.write(f"BRIDGE_CRASH_SEED={seed} BRIDGE_CRASH_PLAN_S={PLAN_S}\n")
    directory = Path(tempfile.mkdtemp(prefix=f"plan-{seed}-"))
    complaints = run_plan(cluster, seed, PLAN_S, directory)
    assert not complaints, in_short(complaints, seed, PLAN_S, directory)
    shutil.rmtree(directory)
