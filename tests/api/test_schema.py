"""The API keeps to its own description: no server error, no undocumented status, no answer that breaks its schema.

Requests are made from the description, right and wrong ones, the same in every run.
"""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.api.examples import fill
from tests.api.fakes import World

WORLD = World()
WORLD.hub.close()  # streams end at once
KEY = WORLD.key()
KNOWN = {**fill(WORLD), "tenant": "-"}

schema = schemathesis.openapi.from_asgi("/openapi.json", WORLD.app, headers={"authorization": f"Bearer {KEY}"})
schema.config.seed = 20260301
schema.config.generation.update(allow_extra_parameters=False)  # HTTP has it that unknown headers are ignored


@schema.auth()
class Bearer:
    """Left out and spoilt by the check that asks whether authentication is enforced."""

    def get(self, case: schemathesis.Case[Any], ctx: schemathesis.AuthContext) -> str:
        del case, ctx
        return KEY

    def set(self, case: schemathesis.Case[Any], data: str, ctx: schemathesis.AuthContext) -> None:
        del ctx
        case.headers["authorization"] = f"Bearer {data}"


@schema.hook
def map_path_parameters(ctx: schemathesis.HookContext, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Every other request is about something that is there."""
    del ctx
    if path_parameters and sum(len(str(value)) for value in path_parameters.values()) % 2:
        return {name: KNOWN.get(name, value) for name, value in path_parameters.items()}
    return path_parameters


# What a schema cannot say may still be refused: a URL that leads nowhere, a cursor that no page gave.
@schema.parametrize()
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_operation_answers_as_described(case: schemathesis.Case[Any]) -> None:
    fill(WORLD)  # whatever an earlier request has changed or deleted
    case.call_and_validate(excluded_checks=[positive_data_acceptance])


def test_every_operation_is_asked() -> None:
    paths = {path: methods for path, methods in WORLD.app.openapi()["paths"].items() if path != "/openapi.json"}
    described = {(path, method) for path, methods in paths.items() for method in methods}

    assert {(each.path, each.method) for each in map(_operation, schema.get_all_operations())} == described


def _operation(found: Any) -> Any:
    return found.ok()
