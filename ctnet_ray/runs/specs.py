"""Which model is built, as plain data."""

from dataclasses import dataclass

from ctnet_ray.schema import Role


@dataclass(frozen=True)
class SharedAttention:
    """Attention that is computed once for both towers."""

    features: tuple[str, ...] = ()
    """Sequences that share it."""
    owner: Role = "source"
    """Tower whose attention, and embeddings under it, serve both: source or target."""

    def given_to(self, tower: Role) -> tuple[str, ...]:
        """Return the sequences whose vectors a tower gets from the other one."""
        return () if tower == self.owner else self.features


NOTHING_SHARED = SharedAttention()
