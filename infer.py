"""Classify texts, measure early exit, hand a model on: infer.py {predict,calibrate,compare,study,export,verify}"""

from pathlib import Path
from typing import Annotated

import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import CalibrateConfig, CompareConfig, ExportConfig, PredictConfig, StudyConfig, VerifyConfig

Command = (
    Annotated[PredictConfig, tyro.conf.subcommand("predict")]
    | Annotated[CalibrateConfig, tyro.conf.subcommand("calibrate")]
    | Annotated[CompareConfig, tyro.conf.subcommand("compare")]
    | Annotated[StudyConfig, tyro.conf.subcommand("study")]
    | Annotated[ExportConfig, tyro.conf.subcommand("export")]
    | Annotated[VerifyConfig, tyro.conf.subcommand("verify")]
)


def main() -> None:
    """Read the settings, then do what they ask."""
    match tyro.cli(Command, config=TYRO_STYLE):
        case PredictConfig() as config:
            from fastbert_jax.inference.predict_command.predict_files import predict

            predict(config)
        case CalibrateConfig() as config:
            from fastbert_jax.inference.calibrate import calibrate_spec

            print(calibrate_spec(config).words())
            print(f"python infer.py predict --model {config.model} --target {config.target} --input TEXTS")
        case CompareConfig() as config:
            from fastbert_jax.inference.compare_command import compare_spec, save
            from fastbert_jax.report.comparison_table import render

            compared = compare_spec(config)
            try:
                print(render(compared.comparison), flush=True)
            finally:  # the table and the files are kept when the other cannot be written
                if words := save(config, compared):
                    print(words)
        case StudyConfig() as config:
            from fastbert_jax.inference.study import study_spec

            print(study_spec(config))
        case ExportConfig() as config:
            from fastbert_jax.training.export import export

            print(export(config))
        case VerifyConfig() as config:
            from fastbert_jax.training.verify import verify_run

            print(verify_run(Path(config.run)))


if __name__ == "__main__":
    end_with(main)
