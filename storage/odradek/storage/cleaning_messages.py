"""Between a node and a process that cleans for it (cleaner_worker.py): one JSON object per line, in both directions.

{"clean": job}     node → worker     one at a time
{"rate": number}   node → worker     bytes per second, null for no limit; counts from then on
outcome            worker → node     one for each job
{"alive": true}    worker → node     before that, again and again: it reads or writes, or waits because of the rate
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, astuple
from typing import Any

from odradek.storage.cleaner import (
    Cleaned,
    CleanedGroup,
    CleaningJob,
    LastOfProducer,
    Outcome,
    SourceSegment,
)
from odradek.storage.txn_index import AbortedTxn

ALIVE = b'{"alive":true}'
"""A line without its end."""


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def encode_job(job: CleaningJob) -> bytes:
    fields = {field.name: getattr(job, field.name) for field in dataclasses.fields(job)}
    fields["segments"] = [astuple(segment) for segment in job.segments]
    fields["producers"] = {
        producer_id: (last.epoch, last.last_offset) for producer_id, last in job.producers.items()
    }
    return _line({"clean": fields})


def encode_rate(bytes_per_second: float) -> bytes:
    limited = bytes_per_second < float("inf")
    return _line({"rate": bytes_per_second if limited else None})


def decode(line: bytes) -> CleaningJob | float:
    """A job, or a rate."""
    message = json.loads(line)
    if "rate" in message:
        rate = message["rate"]
        return float("inf") if rate is None else float(rate)
    fields = message["clean"]
    fields["segments"] = tuple(SourceSegment(*each) for each in fields["segments"])
    fields["aborted"] = tuple(AbortedTxn(*each) for each in fields["aborted"])
    fields["producers"] = {int(key): LastOfProducer(*each) for key, each in fields["producers"].items()}
    return CleaningJob(**fields)


def encode_outcome(outcome: Outcome) -> bytes:
    error = outcome.error
    return _line(
        {
            "cleaned": asdict(outcome.cleaned) if outcome.cleaned is not None else None,
            "problem": outcome.problem,
            "error": [error.errno, error.strerror or str(error), error.filename]
            if error is not None
            else None,
            "died": outcome.died,
        }
    )


def decode_outcome(line: bytes) -> Outcome:
    """ValueError or KeyError for what no worker sends."""
    message = json.loads(line)
    cleaned, error = message["cleaned"], message["error"]
    if cleaned is not None:
        cleaned["groups"] = [
            CleanedGroup(tuple(SourceSegment(**source) for source in group["sources"]), group["size"])
            for group in cleaned["groups"]
        ]
    return Outcome(
        Cleaned(**cleaned) if cleaned is not None else None,
        message["problem"],
        OSError(*error) if error is not None else None,
        message["died"],
    )
