"""What all tests share: the broker, a prefix for topics, and how strictly a run is judged."""

import secrets
import signal
from collections.abc import Generator, Iterator

import hypothesis
import pytest
from typing_extensions import override
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.brokers import BrokerChoice, RunningBroker, broker_of_the_session, choose_broker, strict

# Derandomised, so that a red run is red again; without deadline, as the machines that run it are shared.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
# Run by hand to search further: pytest --hypothesis-profile=search
hypothesis.settings.register_profile("search", max_examples=5_000, deadline=None)
hypothesis.settings.load_profile("ci")

CHOICE = pytest.StashKey[BrokerChoice]()


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what runs in its background with Ctrl-C ignored, and so would every command that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[CHOICE] = choose_broker()


def pytest_report_header(config: pytest.Config) -> str:
    choice = config.stash[CHOICE]
    return f"kafka broker: {choice.address or choice.kind} ({choice.reason})"


class Shares(LoadScopeScheduling):
    """How several processes share the tests: by module, and all crash tests to one; two at a time starve each other."""

    @override
    def _split_scope(self, nodeid: str) -> str:
        return "crash" if nodeid.startswith("tests/crash/") else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Shares:
    return Shares(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Crash tests come first, as they take the longest together."""
    items.sort(key=lambda item: item.path.parent.name != "crash")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],  # noqa: ARG001  # pytest hands arguments over by name
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In a strict run a skipped test has failed: what was not run was not proven."""
    report = yield
    if strict() and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped in a strict run: {report.longreprtext}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """As above, for modules that skip themselves."""
    report = yield
    if strict() and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped in a strict run: {report.longreprtext}"
    return report


@pytest.fixture(scope="session")
def broker(pytestconfig: pytest.Config) -> Iterator[RunningBroker]:
    """The broker of this run, started by the first test that wants one; `topic_prefix` keeps tests apart on it."""
    with broker_of_the_session(pytestconfig.stash[CHOICE]) as running:
        yield running


@pytest.fixture
def topic_prefix() -> str:
    """A first part for names of topics, groups and transactional ids that no other test has."""
    return f"t{secrets.token_hex(6)}"
