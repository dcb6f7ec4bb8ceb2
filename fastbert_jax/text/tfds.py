"""Reader of TensorFlow Datasets without TensorFlow: prepared ArrayRecord (or Parquet) sets as tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastbert_jax.errors import UserError, nearest, needs_extra
from fastbert_jax.text.tables import Row, Rows, Table

# TFDS gives this class to rows whose label is kept secret, such as the test splits of GLUE.
SECRET_LABEL = -1


def splits(name: str) -> tuple[str, ...]:
    """The splits of a prepared set.

    Raises:
      UserError: no such set, or it is not prepared in a format that can be read.
    """
    return tuple(_builder(name).info.splits)


def open_tfds(name: str, split: str) -> Table:
    """Open one split; TFDS slices such as `train[:10%]` are splits too.

    Raises:
      UserError: no such set, no such split, or it is not prepared in a format that can be read.
    """
    builder = _builder(name)
    import tensorflow_datasets as tfds

    known = tuple(builder.info.splits)
    if split.split("[")[0].split("+")[0].strip() not in (*known, "all"):
        raise UserError(
            f"tfds:{name}: expected one of the splits {list(known)}, found {split!r}; {nearest(split, known)}"
        )
    try:
        source = builder.as_data_source(split=split)
    except NotImplementedError:
        raise UserError(
            f"tfds:{name}: expected ArrayRecord files in {builder.data_dir}, found TFRecord, which needs TensorFlow; "
            f"prepare the set again: remove that directory, then {_prepare_command(name)}"
        ) from None
    except ValueError as error:
        raise UserError(
            f"tfds:{name}: expected a split such as 'train' or 'train[:10%]', found {split!r} ({error})"
        ) from None
    features = builder.info.features
    classes = {key: tuple(feature.names) for key, feature in features.items() if getattr(feature, "names", None)}
    place = f"tfds:{name}#{split}"

    def rows(columns: Sequence[str]) -> Rows:
        for number in range(len(source)):
            record, where = source[number], f"{place}:{number + 1}"
            yield Row(where, {key: _plain(record[key], classes.get(key), where=where, column=key) for key in columns})

    texts = tuple(key for key, feature in features.items() if isinstance(feature, tfds.features.Text))
    return Table(place, tuple(features), rows, text_columns=texts, class_names=classes, row_count=len(source))


def _builder(name: str) -> Any:
    with needs_extra("tfds", f"tfds:{name}"):
        import tensorflow_datasets as tfds

        # Without TensorFlow, GLUE and other older sets are known only after this import.
        import tensorflow_datasets.text

    directory = os.environ.get("TFDS_DATA_DIR")
    try:
        builder = tfds.builder(name, data_dir=directory, try_gcs=False)
    except tfds.core.DatasetNotFoundError:
        close = nearest(name.split("/")[0], tfds.list_builders(with_community_datasets=False))
        hint = close if close.startswith("did") else "https://www.tensorflow.org/datasets/catalog lists them."
        raise UserError(
            f"expected a TFDS name, found tfds:{name}; {hint} "
            f"Your own sets are looked for in {directory or '~/tensorflow_datasets'} (TFDS_DATA_DIR)"
        ) from None
    except (ValueError, RuntimeError) as error:
        raise UserError(f"expected a TFDS name, found tfds:{name} ({str(error).strip()})") from None
    if not Path(builder.data_dir).exists():
        raise UserError(
            f"tfds:{name}: expected a prepared set in {builder.data_dir}, found nothing; prepare it once: "
            f"{_prepare_command(name)}"
        )
    return builder


def _prepare_command(name: str) -> str:
    return (
        'python -c "import tensorflow_datasets as tfds, tensorflow_datasets.text; '
        f"tfds.builder('{name}', file_format='array_record').download_and_prepare()\""
    )


def _plain(value: Any, classes: tuple[str, ...] | None, *, where: str, column: str) -> Any:
    """A Python value: text from bytes (`surrogateescape`), the class's name, None for a secret label.

    Raises:
      UserError: the column holds sequences.
    """
    if isinstance(value, list) or getattr(value, "size", 1) != 1:
        raise UserError(f"{where}: expected one value in the column {column!r}, found a list; name another column")
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if classes is not None:
        return None if value == SECRET_LABEL else classes[value]
    return value
