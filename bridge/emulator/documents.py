"""Jobs as TAMS writes them. Pure."""

from dataclasses import dataclass
from math import ceil
from urllib.parse import parse_qs
from uuid import UUID

from bridge.emulator.chance import mark
from bridge.emulator.images import Picture
from bridge.emulator.jobs import FINAL_STATUS, Job, Status
from bridge.emulator.script import Outcome
from bridge.emulator.settings import EmulatorSettings
from bridge.emulator.wire import Int64, JsonObject

OUTPUTS_PATH = "/outputs/"


def output_id(job: Job, index: int) -> str:
    """Give the id of an output, a UUID."""
    return str(UUID(mark(job.id, index), version=4))


def output_picture(job: Job, index: int) -> Picture:
    """Give what is to be seen on an output."""
    width, height = job.order.graph.size
    seed = job.order.graph.seed + index
    return Picture(name=f"{job.id}_{index}", seed=seed, width=width, height=height, moving=job.order.graph.makes_video)


def url_is_valid(path: str, query: str, now: float, settings: EmulatorSettings) -> bool:
    """Tell whether the URL of an output was made here and has not expired."""
    expiry, _, signature = parse_qs(query).get("auth_key", [""])[0].partition("-")
    return signature == mark(settings.seed, path, expiry) and now < int(expiry)


@dataclass(frozen=True, slots=True)
class View:
    """How a job is shown: at which moment, by which switches, with output URLs at which address."""

    now: float
    settings: EmulatorSettings
    base_url: str

    def job(self, job: Job) -> JsonObject:
        """Write a job; the part that belongs to its state is filled in, the others are absent."""
        status = job.status(self.now)
        is_free = self.now >= job.ends_at and not job.is_charged
        return {
            "id": job.id,
            "status": status,
            "credits": 0 if is_free else job.credits,
            "waitingInfo": self._waiting(job) if status is Status.WAITING else None,
            "failedInfo": self._failed(job) if status is Status.FAILED else None,
            "runningInfo": self._running(job) if status is Status.RUNNING else None,
            "successInfo": self._success(job) if status is Status.SUCCESS else None,
        }

    def _waiting(self, job: Job) -> JsonObject:
        return {"queueRank": Int64(job.queue_rank(self.now)), "queueLen": Int64(job.ahead + 1)}

    @staticmethod
    def _failed(job: Job) -> JsonObject:
        return {"reason": job.order.script.reason, "code": job.outcome.value}

    def _running(self, job: Job) -> JsonObject:
        progress = job.progress(self.now) * self.settings.progress_scale
        images = [
            {"resourceImage": self._resource(job, index, url=""), "progress": progress} for index in range(job.outputs)
        ]
        return {"processingImages": images, "workflowFinishItem": self._finish_item(job, job.progress(self.now))}

    def _success(self, job: Job) -> JsonObject:
        outputs = [self._resource(job, index, url=self._url(job, index)) for index in range(job.outputs)]
        moving = job.order.graph.makes_video
        return {
            "images": [] if moving else outputs,
            "videos": outputs if moving else [],
            "workflowFinishItem": self._finish_item(job, 1.0),
            "imageExifMetaMap": {output_id(job, index): self._exif(job, index) for index in range(job.outputs)},
            "runtime": str(round(job.run_s)),
        }

    def _resource(self, job: Job, index: int, *, url: str) -> JsonObject:
        picture = output_picture(job, index)
        image = {"format": picture.format, "width": picture.width, "height": picture.height}
        left = self._url_expiry(job) - self.now if url else 0
        return {
            "id": output_id(job, index),
            "url": url,
            "expiredIn": Int64(max(ceil(left), 0)),
            "meta": {"image": image},
        }

    def _url(self, job: Job, index: int) -> str:
        picture = output_picture(job, index)
        path = f"{OUTPUTS_PATH}{picture.name}.{picture.format}"
        expiry = int(self._url_expiry(job))
        return f"{self.base_url}{path}?auth_key={expiry}-{mark(self.settings.seed, path, expiry)}"

    def _url_expiry(self, job: Job) -> float:
        born = self.now if self.settings.url_renewal == "renewed" else job.ends_at
        return born + self.settings.url_life_s

    @staticmethod
    def _exif(job: Job, index: int) -> JsonObject:
        """Write what a camera would note; the size is a guess, for the file is drawn when it is fetched."""
        picture = output_picture(job, index)
        meta = {
            "FileSize": f"{picture.width * picture.height // 640} kB",
            "ImageSize": f"{picture.width}x{picture.height}",
            "MIMEType": picture.media_type,
            "Seed": str(picture.seed),
        }
        return {"meta": meta}

    def _finish_item(self, job: Job, progress: float) -> JsonObject:
        nodes = job.order.graph.nodes
        finished = int(progress * len(nodes))
        scale = self.settings.progress_scale
        return {
            "status": "SUCCESS" if progress >= 1 else "RUNNING",
            "progress": progress * scale,
            "step": finished,
            "id": mark(job.id, "finish-item"),
            "ctime": self._moment(job.starts_at),
            "mtime": self._moment(min(self.now, job.ends_at)),
            "nodes": {
                node_id: self._node(job, node_id, min(max(progress * len(nodes) - position, 0.0), 1.0))
                for position, node_id in enumerate(nodes)
            },
            "finishedNodes": dict.fromkeys(list(nodes)[:finished], True),
        }

    def _node(self, job: Job, node_id: str, progress: float) -> JsonObject:
        status = "SUCCESS" if progress >= 1 else "RUNNING" if progress else "INIT"
        shows = progress >= 1 and node_id == job.order.graph.last_node
        return {
            "id": node_id,
            "status": status,
            "process": round(progress, 4) * self.settings.progress_scale,
            "outputUi": self._output_ui(job) if shows else None,
        }

    @staticmethod
    def _output_ui(job: Job) -> JsonObject:
        images = [
            {
                "filename": f"{picture.name}.{picture.format}",
                "type": "output",
                "height": picture.height,
                "width": picture.width,
                "format": picture.format,
                "imageResourceId": output_id(job, index),
            }
            for index in range(job.outputs)
            for picture in [output_picture(job, index)]
        ]
        return {"type": "images", "images": images}

    def _moment(self, seconds: float) -> Int64:
        return Int64(seconds * 1000 if self.settings.time_unit == "ms" else seconds)


def timetable(job: Job, now: float) -> JsonObject:
    """Write what the emulator knows and TAMS does not tell."""
    return {
        "id": job.id,
        "status": job.status(now),
        "willBe": None if job.outcome is Outcome.HANG else FINAL_STATUS[job.outcome],
        "requestId": job.order.request_id,
        "app": job.order.app,
        "group": job.order.group,
        "charged": job.credits if job.is_charged else 0,
        "runningNotifyUrl": job.order.notify_url,
        "createdAt": job.created_at,
        "startsAt": job.starts_at,
        "endsAt": job.ends_at,
        "gets": job.gets,
        "deletes": job.deletes,
    }
