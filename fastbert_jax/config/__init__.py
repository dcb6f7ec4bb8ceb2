"""Every setting, declared once: frozen dataclasses that check their values.

The line below a key is its meaning, which `tyro` shows as the command line's help. Nothing in this room needs jax.
"""

from fastbert_jax.config.data import PREPARED as PREPARED
from fastbert_jax.config.data import DataConfig as DataConfig
from fastbert_jax.config.data import PrepareConfig as PrepareConfig
from fastbert_jax.config.data import ReadingConfig as ReadingConfig
from fastbert_jax.config.inference import RECOMMENDED as RECOMMENDED
from fastbert_jax.config.inference import AnswerCommand as AnswerCommand
from fastbert_jax.config.inference import CalibrateConfig as CalibrateConfig
from fastbert_jax.config.inference import CompareConfig as CompareConfig
from fastbert_jax.config.inference import EvaluateConfig as EvaluateConfig
from fastbert_jax.config.inference import ExitConfig as ExitConfig
from fastbert_jax.config.inference import ExplainConfig as ExplainConfig
from fastbert_jax.config.inference import ExploreConfig as ExploreConfig
from fastbert_jax.config.inference import ExportConfig as ExportConfig
from fastbert_jax.config.inference import MeasureConfig as MeasureConfig
from fastbert_jax.config.inference import PredictConfig as PredictConfig
from fastbert_jax.config.inference import VerifyConfig as VerifyConfig
from fastbert_jax.config.model import Activation as Activation
from fastbert_jax.config.model import BertConfig as BertConfig
from fastbert_jax.config.model import ConvertConfig as ConvertConfig
from fastbert_jax.config.model import ModelConfig as ModelConfig
from fastbert_jax.config.shared import ANSWER_ENDINGS as ANSWER_ENDINGS
from fastbert_jax.config.shared import AUTO_ENCODING as AUTO_ENCODING
from fastbert_jax.config.shared import COMPRESSED_ENDINGS as COMPRESSED_ENDINGS
from fastbert_jax.config.shared import BadRow as BadRow
from fastbert_jax.config.shared import CheckpointKind as CheckpointKind
from fastbert_jax.config.shared import Delimiter as Delimiter
from fastbert_jax.config.shared import ExitKind as ExitKind
from fastbert_jax.config.shared import KLDirection as KLDirection
from fastbert_jax.config.shared import LayerNormKind as LayerNormKind
from fastbert_jax.config.shared import LogTarget as LogTarget
from fastbert_jax.config.shared import MeshConfig as MeshConfig
from fastbert_jax.config.shared import Mode as Mode
from fastbert_jax.config.shared import PolicyName as PolicyName
from fastbert_jax.config.shared import Precision as Precision
from fastbert_jax.config.shared import Probabilities as Probabilities
from fastbert_jax.config.shared import ProcessesConfig as ProcessesConfig
from fastbert_jax.config.shared import QuietCommand as QuietCommand
from fastbert_jax.config.shared import TextForm as TextForm
from fastbert_jax.config.shared import as_option as as_option
from fastbert_jax.config.shared import choice_of as choice_of
from fastbert_jax.config.shared import require as require
from fastbert_jax.config.shared import require_local as require_local
from fastbert_jax.config.training import DistilConfig as DistilConfig
from fastbert_jax.config.training import FineTuneConfig as FineTuneConfig
from fastbert_jax.config.training import LogConfig as LogConfig
from fastbert_jax.config.training import PhaseConfig as PhaseConfig
from fastbert_jax.config.training import TrainConfig as TrainConfig
from fastbert_jax.config.training import TruncateConfig as TruncateConfig
from fastbert_jax.config.training import UnlabelledPhaseConfig as UnlabelledPhaseConfig
