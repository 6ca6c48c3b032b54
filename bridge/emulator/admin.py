"""The endpoints below `/_emulator/`, to set up and look into the emulator: not authenticated, limited or journaled."""

from collections.abc import Callable
from urllib.parse import parse_qs

from pydantic import ValidationError

from bridge.emulator.api import Api
from bridge.emulator.documents import timetable
from bridge.emulator.faults import FaultRule
from bridge.emulator.settings import EmulatorSettings
from bridge.emulator.wire import (
    Answer,
    Refusal,
    Request,
    RpcCode,
    json_answer,
    not_found,
    read_json_object,
    rpc_status,
)

ADMIN_PATH = "/_emulator/"


class Admin:
    """Answers admin requests about one emulated API."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._routes: dict[tuple[str, str], Callable[[Request], Answer]] = {
            ("GET", "health"): self._health,
            ("GET", "settings"): self._settings,
            ("PUT", "settings"): self._change_settings,
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): self._clear_faults,
            ("GET", "journal"): self._journal,
            ("GET", "stats"): self._stats,
            ("GET", "jobs"): self._job,
        }

    def answer(self, request: Request) -> Answer:
        """Answer an admin request; what cannot be read is answered 400."""
        name = request.path.removeprefix(ADMIN_PATH).partition("/")[0]
        handler = self._routes.get((request.method, name))
        try:
            if handler is None:
                raise not_found("route")
            return handler(request)
        except Refusal as refusal:
            return refusal.answer
        except (ValidationError, ValueError, OSError) as error:
            return Refusal(400, rpc_status(RpcCode.INVALID_ARGUMENT, str(error))).answer

    def _health(self, _: Request) -> Answer:
        return json_answer({"status": "ok", "emulatedTime": self._api.clock.now()})

    def _settings(self, _: Request) -> Answer:
        return Answer(body=self._api.settings.model_dump_json().encode())

    def _change_settings(self, request: Request) -> Answer:
        changes = read_json_object(request.body)
        self._api.use(EmulatorSettings.model_validate({**self._api.settings.model_dump(), **changes}))
        return self._settings(request)

    def _add_fault(self, request: Request) -> Answer:
        self._api.rules.add([FaultRule.model_validate_json(bytes(request.body))])
        return json_answer({})

    def _clear_faults(self, _: Request) -> Answer:
        self._api.rules.clear()
        return json_answer({})

    def _journal(self, request: Request) -> Answer:
        after = int(parse_qs(request.query).get("after", ["0"])[0])
        return Answer(body=b"".join(self._api.journal.lines(after)), content_type="application/x-ndjson")

    def _stats(self, _: Request) -> Answer:
        api = self._api
        jobs = {str(status): count for status, count in api.tams.count_by_status(api.clock.now()).items()}
        return json_answer({**api.journal.counts(), "jobs": jobs, "creditsSpent": round(api.tams.spent, 4)})

    def _job(self, request: Request) -> Answer:
        now = self._api.clock.now()
        return json_answer(timetable(self._api.tams.job(request.path.rpartition("/")[2], now), now))
