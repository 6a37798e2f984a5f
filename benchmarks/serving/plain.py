"""The peer: an exported version behind FastAPI, as one writes it in ten lines.

python -m benchmarks.serving.plain --export DIR --port 8000
"""

from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from ctnet_ray.serving.folder import open_export
from jobs.command import run


class Request(BaseModel):
    """One user and many candidates."""

    user: dict[str, Any]
    candidates: dict[str, list[Any]]


def main(export: str, port: int = 8000) -> None:
    """Answer POST /score until this is ended.

    Args:
        export: Folder of an exported version.
        port: Port on 127.0.0.1.
    """
    torch.set_num_threads(1)
    scorer, app = open_export(export), FastAPI()

    @app.post("/score")
    def score(request: Request) -> dict[str, Any]:  # not async: FastAPI gives it a thread
        return {"scores": scorer.score_request(request.user, request.candidates).tolist()}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    run(main, __doc__ or "")
