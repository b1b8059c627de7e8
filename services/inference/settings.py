"""The inference service's settings, from the environment."""

from dataclasses import dataclass, field
from typing import Literal, Self, cast

from services.grpckit.database import PostgresAddress
from services.grpckit.settings import Environment, ServerSettings, peer_address
from services.modelkit.trust import TrustSettings

DEFAULT_PORT = 7104


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How an engine computes."""

    device: str = "auto"
    """`auto` (the first accelerator, else the CPU), `cpu` or `cuda:N`. TUNEFORGE_INFERENCE_DEVICE."""
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of weights and products; `auto` is bf16 where the device computes it natively, else fp32.
    TUNEFORGE_INFERENCE_DTYPE."""
    threads: int = 0
    """CPU threads of one engine; 0: all cores that the service may use. TUNEFORGE_INFERENCE_THREADS."""
    max_rows: int = 64
    """Prompts that run at once for one deployment; more wait. 64: the most that one request may bring.
    TUNEFORGE_INFERENCE_MAX_ROWS."""
    intake_limit_s: int = 60
    """Seconds in which an engine must read a request's prompts, or it is ended and loaded again: templates and
    tokenizers come with models, and one that hangs would hold up every other request. 60: a full request takes a few
    seconds on a busy machine. TUNEFORGE_INFERENCE_INTAKE_LIMIT_S."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceSettings:
    """Every knob of the inference service."""

    server: ServerSettings
    """What every service has; its `data` folder holds `inference.sqlite` and `cache/`."""
    registry_address: str
    """Where versions and their files come from. TUNEFORGE_REGISTRY_ADDRESS."""
    engine: EngineSettings
    postgres: PostgresAddress | None = None
    """The database on a PostgreSQL server; None: SQLite in the data folder. TUNEFORGE_INFERENCE_DATABASE_URL with the
    password in ..._DATABASE_PASSWORD_FILE or ..._DATABASE_PASSWORD."""

    trust: TrustSettings = field(default_factory=TrustSettings)
    """Whose signatures over models count."""

    @classmethod
    def from_env(cls) -> Self:
        """Reads all settings.

        Raises:
            SettingsError: With all problems at once.
        """
        env = Environment()
        device = env.text("TUNEFORGE_INFERENCE_DEVICE", default="auto").strip().lower() or "auto"
        if device not in {"auto", "cpu"} and not device.removeprefix("cuda:").isdecimal():
            env.refuse("TUNEFORGE_INFERENCE_DEVICE", "auto, cpu or cuda:N")
        dtype = env.choice("TUNEFORGE_INFERENCE_DTYPE", default="auto", choices=("auto", "bf16", "fp32"))
        settings = cls(
            server=ServerSettings.from_env("inference", DEFAULT_PORT, env=env),
            registry_address=peer_address("registry", 7101, env),
            trust=TrustSettings.from_env(env),
            postgres=PostgresAddress.from_env("inference", env),
            engine=EngineSettings(
                device=device,
                dtype=cast('Literal["auto", "bf16", "fp32"]', dtype),
                threads=env.integer("TUNEFORGE_INFERENCE_THREADS", default=0, maximum=1024),
                max_rows=env.integer("TUNEFORGE_INFERENCE_MAX_ROWS", default=64, minimum=1, maximum=4096),
                intake_limit_s=env.integer("TUNEFORGE_INFERENCE_INTAKE_LIMIT_S", default=60, minimum=1, maximum=3600),
            ),
        )
        env.finish()
        return settings
