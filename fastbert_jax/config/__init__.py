"""Every setting, declared once: frozen dataclasses that check their values.

The line below a key is its meaning, which `tyro` shows as the command line's help. Nothing in this room needs jax.
"""

from fastbert_jax.config.ablations import AblationsConfig
from fastbert_jax.config.choices import (
    ANSWER_ENDINGS,
    BATCH_TOKENS,
    COMPRESSED_ENDINGS,
    Ablation,
    BadRow,
    CheckpointKind,
    Delimiter,
    ExitKind,
    KLDirection,
    LayerNormKind,
    LogTarget,
    Mode,
    PolicyName,
    Precision,
    TextForm,
)
from fastbert_jax.config.data import DataConfig, LabelledTexts, PrepareConfig
from fastbert_jax.config.devices import MeshConfig, ProcessesConfig
from fastbert_jax.config.inference import (
    CalibrateConfig,
    CompareConfig,
    EvaluateConfig,
    ExitConfig,
    ExportConfig,
    PredictConfig,
    StudyConfig,
    VerifyConfig,
)
from fastbert_jax.config.model import Activation, BertConfig, ConvertConfig, ModelConfig
from fastbert_jax.config.one_text import ExplainConfig, ExploreConfig
from fastbert_jax.config.output import JsonFile, QuietCommand
from fastbert_jax.config.training import (
    CheckpointConfig,
    DistilConfig,
    FineTuneConfig,
    LogConfig,
    PhaseConfig,
    TrainConfig,
    TruncateConfig,
    UnlabelledPhaseConfig,
)

__all__ = [
    "ANSWER_ENDINGS",
    "BATCH_TOKENS",
    "COMPRESSED_ENDINGS",
    "Ablation",
    "AblationsConfig",
    "Activation",
    "BadRow",
    "BertConfig",
    "CalibrateConfig",
    "CheckpointConfig",
    "CheckpointKind",
    "CompareConfig",
    "ConvertConfig",
    "DataConfig",
    "Delimiter",
    "DistilConfig",
    "EvaluateConfig",
    "ExitConfig",
    "ExitKind",
    "ExplainConfig",
    "ExploreConfig",
    "ExportConfig",
    "FineTuneConfig",
    "JsonFile",
    "KLDirection",
    "LabelledTexts",
    "LayerNormKind",
    "LogConfig",
    "LogTarget",
    "MeshConfig",
    "Mode",
    "ModelConfig",
    "PhaseConfig",
    "PolicyName",
    "Precision",
    "PredictConfig",
    "PrepareConfig",
    "ProcessesConfig",
    "QuietCommand",
    "StudyConfig",
    "TextForm",
    "TrainConfig",
    "TruncateConfig",
    "UnlabelledPhaseConfig",
    "VerifyConfig",
]
