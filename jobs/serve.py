"""Serve a model's scores over HTTP, and swap in newer versions as its alias moves.

python -m jobs.serve --model NAME@ALIAS [--port 8000] [--replicas 2]
"""

from ctnet_ray.config import TrackingConfig
from ctnet_ray.serving.http.request import Limits
from jobs.command import run


def main(
    model: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int = 1,
    threads: int = 1,
    most_waiting: int = 100,
    most_together: int = 16,
    look_seconds: float = 10.0,
    keep_alive_seconds: int = 75,
    token_file: str | None = None,
    limits: Limits = Limits(),  # noqa: B008
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
) -> None:
    """Answer POST /score until this is ended; GET /healthz, /ready and /metrics tell how it stands.

    Args:
        model: Registered model: NAME (its newest day), NAME/VERSION or NAME@ALIAS; or an exported folder.
        host: Address to listen on. Another than this machine's own needs an access token.
        port: Port to listen on; all replicas of a machine share it.
        replicas: Processes that score.
        threads: Threads of each that score; each has a CPU.
        most_waiting: Requests that may wait in a replica; what is beyond is refused with 503.
        most_together: Requests of up to 32 candidates that a thread scores at once, if so many wait; 1: each
            alone, so that no score's last digit depends on others.
        look_seconds: Seconds between two looks at which version the name means.
        keep_alive_seconds: Seconds that an idle connection stays open; longer than a load balancer in front
            keeps its own, or some of its requests meet a connection that is just being closed.
        token_file: File with the access token; null: the environment's CTNET_SERVE_TOKEN, if it is set.
        limits: How large a request may be.
        tracking: Where the model is registered.
    """
    from ctnet_ray.cluster.serving import ServingOptions
    from ctnet_ray.orchestration.serving import serve_model
    from ctnet_ray.serving.http.access import read_token

    options = ServingOptions(
        host,
        port,
        replicas,
        threads,
        most_waiting,
        most_together,
        look_seconds,
        keep_alive_seconds,
        limits,
        read_token(token_file),
    )
    serve_model(model, options, tracking)


if __name__ == "__main__":
    run(main, __doc__ or "")
