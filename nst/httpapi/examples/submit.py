#!/usr/bin/env python3
"""Has a picture made by the service, by Python's requests: submit.py CONTENT STYLE OUT.png"""
import json
import os
import sys
import time

import requests

server = os.environ.get("NST_SERVER", "http://127.0.0.1:8080")
session = requests.Session()
if "NST_TOKEN" in os.environ:
    session.headers["Authorization"] = "Bearer " + os.environ["NST_TOKEN"]

content, style, out = sys.argv[1:]
with open(content, "rb") as c, open(style, "rb") as s:
    answer = session.post(server + "/v1/jobs", files=[("content", c), ("style", s)],
                          data={"options": json.dumps({"size": 256, "iterations": 20})})


def checked(answer):
    """The answer, or the end with what the service says is wrong."""
    if not answer.ok:
        sys.exit(answer.json()["detail"] if "json" in answer.headers["Content-Type"] else f"status {answer.status_code}")
    return answer


job = checked(answer).json()
while job["state"] in ("queued", "running"):
    time.sleep(0.5)
    job = checked(session.get(f"{server}/v1/jobs/{job['id']}")).json()
if job["state"] != "done":
    sys.exit(job.get("error", job["state"]))
result = checked(session.get(f"{server}/v1/jobs/{job['id']}/result")).content
with open(out, "wb") as file:
    file.write(result)
