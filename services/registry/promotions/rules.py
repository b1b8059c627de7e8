"""What may be promoted, and from which state to which: checked in the transaction of the change."""

from dataclasses import dataclass, replace

from sqlalchemy import Connection

from services.grpckit.errors import Reason, ServiceError
from services.registry.lineage.revocations import require_usable
from services.registry.models.store import get_model_version
from services.registry.promotions import store
from services.registry.promotions.resources import Promotion, PromotionState, selected
from services.registry.promotions.wire import manifest_of_record
from tuneforge.names import ModelVersionName


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionWish:
    """What somebody asks for."""

    version: ModelVersionName
    path: str
    patterns: tuple[str, ...]
    actor: str
    time_us: int


def begin(connection: Connection, wish: PromotionWish) -> tuple[Promotion, bool]:
    """Returns the promotion that a wish leads to, not written yet, and whether that is news.

    Raises:
        ServiceError: `NOT_FOUND`, `NOT_PROMOTABLE`, `REVOKED`, `WRONG_STATE`.
    """
    found = get_model_version(connection, wish.version)
    require_usable(connection, str(wish.version))
    if not wish.path:
        raise refusal(wish.version, "has no promotion path, so it is not meant to be promoted; give one")
    manifest = selected(manifest_of_record(found.content.record), wish.patterns)
    if manifest is None:
        raise refusal(wish.version, f"has no file that fits {', '.join(wish.patterns) or 'any pattern'}")
    job = found.content.origin.job.rpartition("/")[2]
    promotion = Promotion(
        version=wish.version,
        path=wish.path,
        destination=f"{wish.path}/{job or f'{wish.version.model}-{wish.version.version}'}",
        state=PromotionState.IN_PROGRESS,
        patterns=wish.patterns,
        num_files=len(manifest.files),
        size_bytes=manifest.size_bytes,
        digest=manifest.digest,
        sequence=0,
        actor=wish.actor,
        create_time_us=wish.time_us,
        update_time_us=wish.time_us,
    )
    current = store.find_promotion(connection, wish.version)
    if current is not None and current.state.has_place:
        is_same = (current.destination, current.digest) == (promotion.destination, promotion.digest)
        if not is_same or current.state is PromotionState.DELETING:
            raise wrong_state(current, "unpromote it first, or wait until it is removed")
        return current, False
    if holder := store.holder_of(connection, promotion.destination, wish.version):
        # Whose it is, is not told: it may be of another project.
        is_mine = holder.version.project == wish.version.project
        whose = f"that of {holder.version}" if is_mine else "taken"
        raise refusal(wish.version, f"would go to {promotion.destination}, which is {whose}; choose another path")
    return promotion, True


def begin_removal(connection: Connection, version: ModelVersionName, actor: str, time_us: int) -> Promotion:
    """Returns the promotion as it is while its copy is removed, not written yet.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such version. `WRONG_STATE`: it is not completed.
    """
    current = store.find_promotion(connection, version)
    if current is None:
        get_model_version(connection, version)
        raise ServiceError(
            Reason.WRONG_STATE,
            f"{version} was never promoted",
            metadata={"name": str(version), "state": "NOT_PROMOTED"},
        )
    if current.state is not PromotionState.COMPLETED:
        raise wrong_state(current, "only a completed promotion can be removed")
    return replace(current, state=PromotionState.DELETING, message="", actor=actor, update_time_us=time_us)


def refusal(version: ModelVersionName, problem: str) -> ServiceError:
    """Returns the error for a version that cannot be promoted."""
    return ServiceError(Reason.NOT_PROMOTABLE, f"{version} {problem}", metadata={"name": str(version)})


def wrong_state(current: Promotion, cure: str) -> ServiceError:
    """Returns the error for a promotion whose state does not allow what was asked for."""
    return ServiceError(
        Reason.WRONG_STATE,
        f"the promotion of {current.version} to {current.path} is {current.state}; {cure}",
        metadata={"name": str(current.version), "state": current.state.value},
    )
