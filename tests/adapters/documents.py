"""Two documents of TAMS, byte for byte: what goes in must come out with nothing lost or changed."""

REAL_SUCCESS = """{"job": {"id": "881417947308949275", "status": "SUCCESS", "credits": 0.8, "successInfo": {
  "images": [{"id": "4dcb663e-eefd-4bd1-8384-98ee3326b7a6", "url": "https://…/881417947447329198_0.png?auth_key=…", "expiredIn": "3600", "meta": {"image": {"width": 768, "height": 768}}}],
  "imageExifMetaMap": {"4dcb663e-eefd-4bd1-8384-98ee3326b7a6": {"meta": {"FileSize": "923 kB", "ImageSize": "768x768", "MIMEType": "image/png", "Seed": "3363668210"}}},
  "runtime": "13"}}}""".encode()  # noqa: E501  as it was pasted
"""A real success (tams-api.md, "The job")."""

PAGE_EXAMPLE = b"""{
"job": {
"id": "string",
"status": "DEFAULT",
"credits": 0,
"waitingInfo": {
"queueRank": "string",
"queueLen": "string"
},
"failedInfo": {
"reason": "string",
"code": "DEFAULT"
},
"runningInfo": {
"processingImages": [
{
"resourceImage": {
"id": "string",
"url": "string",
"expiredIn": "string",
"meta": {
"image": {
"format": "string",
"width": 0,
"height": 0
}
}
},
"progress": 0
}
],
"workflowFinishItem": {
"status": "DEFAULT",
"progress": 0,
"step": 0,
"id": "string",
"ctime": "string",
"mtime": "string",
"nodes": {},
"finishedNodes": {}
}
},
"successInfo": {
"images": [
{
"id": "string",
"url": "string",
"expiredIn": "string",
"meta": {
"image": {
"format": "string",
"width": 0,
"height": 0
}
}
}
],
"videos": [
{
"id": "string",
"url": "string",
"expiredIn": "string",
"meta": {
"image": {
"format": "string",
"width": 0,
"height": 0
}
}
}
],
"workflowFinishItem": {
"status": "DEFAULT",
"progress": 0,
"step": 0,
"id": "string",
"ctime": "string",
"mtime": "string",
"nodes": {},
"finishedNodes": {}
}
}
}
}"""
"""The example of the reference page of `POST /v1/jobs/workflow`."""
