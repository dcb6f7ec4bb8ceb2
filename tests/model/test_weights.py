"""Weight files: what is read, what is refused and in which words, and that a save comes back bit for bit."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from fastbert_jax.config import Activation, BertConfig, LayerNormKind
from fastbert_jax.errors import UserError
from fastbert_jax.model import config_json, weights
from fastbert_jax.model.bert import Bert

Tensors = dict[str, np.ndarray]


def read_config(directory: Path, **changes: object) -> BertConfig:
    return config_json.read_bert_config(directory, **({"num_classes": 3, "exit_size": 8, "exit_heads": 2} | changes))


def load(directory: Path) -> dict:
    return load_backbone(directory, read_config(directory))


def load_backbone(directory: Path, config: BertConfig) -> dict:
    return weights.load_params(directory, config, exits=False)["backbone"]


def rewrite(directory: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = directory / "model.safetensors"
    safetensors.numpy.save_file(change(safetensors.numpy.load_file(path)), path)


def set_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value != "remove"}))


def assert_same(left: dict, right: dict) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for ours, theirs in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert np.asarray(ours).dtype == np.float32
        np.testing.assert_array_equal(ours, theirs, strict=True)


def test_backbone_has_the_tree_of_the_model(tiny_bert_directory: Path) -> None:
    config = read_config(tiny_bert_directory)
    shapes = jax.eval_shape(lambda key: Bert(config).init(key), jax.random.key(0))["backbone"]
    backbone = load(tiny_bert_directory)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), backbone) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), shapes
    )
    stored = safetensors.numpy.load_file(tiny_bert_directory / "model.safetensors")
    np.testing.assert_array_equal(
        backbone["layers"]["intermediate"]["kernel"][2], stored["encoder.layer.2.intermediate.dense.weight"].T
    )


def with_prefix(tensors: Tensors) -> Tensors:
    """`BertForMaskedLM`: no pooler, a head beside the encoder."""
    encoder = {f"bert.{name}": value for name, value in tensors.items() if not name.startswith("pooler.")}
    return encoder | {"cls.predictions.bias": np.zeros(40, np.float32), "bert.embeddings.position_ids": np.arange(20)}


def for_classification(tensors: Tensors) -> Tensors:
    prefixed = {f"bert.{name}": value for name, value in tensors.items()}
    return prefixed | {"classifier.weight": np.zeros((5, 16), np.float32), "classifier.bias": np.zeros(5, np.float32)}


def with_old_names(tensors: Tensors) -> Tensors:
    return {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors.items()
    }


@pytest.mark.parametrize("change", [with_prefix, for_classification, with_old_names])
def test_same_weights_under_other_names(tiny_bert_directory: Path, change: Callable[[Tensors], Tensors]) -> None:
    expected = load(tiny_bert_directory)
    rewrite(tiny_bert_directory, change)
    assert_same(load(tiny_bert_directory), expected)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_become_float32(tiny_bert_directory: Path, dtype: type) -> None:
    expected = jax.tree.map(lambda leaf: leaf.astype(dtype).astype(np.float32), load(tiny_bert_directory))
    rewrite(tiny_bert_directory, lambda tensors: {name: value.astype(dtype) for name, value in tensors.items()})
    assert_same(load(tiny_bert_directory), expected)


def shard(directory: Path) -> dict[str, str]:
    """Cut the weights into two files and return the index's map."""
    tensors = safetensors.numpy.load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    weight_map = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for part in set(weight_map.values()):
        chosen = {name: tensors[name] for name, file in weight_map.items() if file == part}
        safetensors.numpy.save_file(chosen, directory / part)
    return weight_map


def write_index(directory: Path, weight_map: object) -> None:
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards(tiny_bert_directory: Path) -> None:
    expected = load(tiny_bert_directory)
    write_index(tiny_bert_directory, shard(tiny_bert_directory))
    assert_same(load(tiny_bert_directory), expected)


def test_a_missing_shard_is_named(tiny_bert_directory: Path) -> None:
    write_index(tiny_bert_directory, shard(tiny_bert_directory))
    (tiny_bert_directory / "part-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"part-1\.safetensors: expected a safetensors file"):
        load(tiny_bert_directory)


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "part-0.bin", 3])
def test_an_index_cannot_lead_elsewhere(tiny_bert_directory: Path, name: object) -> None:
    write_index(tiny_bert_directory, shard(tiny_bert_directory) | {"embeddings.LayerNorm.bias": name})
    with pytest.raises(UserError, match="expected the name of a .safetensors file beside it, found"):
        load(tiny_bert_directory)


def test_links_may_lead_to_weights_elsewhere(tiny_bert_directory: Path) -> None:
    """The hub's cache is made of such links."""
    expected, path = load(tiny_bert_directory), tiny_bert_directory / "model.safetensors"
    blob = path.rename(tiny_bert_directory.parent / "blob")
    path.symlink_to("../blob")
    assert_same(load(tiny_bert_directory), expected)
    content = blob.read_bytes()
    params, config = small_model()
    weights.save_model(tiny_bert_directory, params, config, extra={})
    assert blob.read_bytes() == content and not path.is_symlink()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_link_to_what_is_no_model_tells_nothing_of_it(tiny_bert_directory: Path, name: str) -> None:
    path, other = tiny_bert_directory / name, tiny_bert_directory.parent / "other"
    other.write_text("a secret of another folder")
    path.unlink()
    path.symlink_to(other)
    with pytest.raises(UserError, match=rf"{name}: expected a (safetensors file|JSON object), found") as error:
        load(tiny_bert_directory)
    assert "secret" not in str(error.value)


def test_all_that_differs_is_in_one_error(tiny_bert_directory: Path) -> None:
    def damage(tensors: Tensors) -> Tensors:
        del tensors["encoder.layer.1.output.dense.bias"], tensors["embeddings.LayerNorm.weight"]
        tensors["encoder.layer.0.attention.self.key.weight"] = np.zeros((16, 4), np.float32)
        tensors["encoder.layer.2.intermediate.dense.bias"] = np.zeros(24, np.int8)
        tensors["encoder.layer.0.adapter.weight"] = np.zeros((2, 2), np.float32)
        tensors["bert.embeddings.LayerNorm.bias"] = np.zeros(16, np.float32)
        return tensors

    rewrite(tiny_bert_directory, damage)
    with pytest.raises(UserError) as error:
        load(tiny_bert_directory)
    head, *problems = str(error.value).split("\n  ")
    assert head.startswith(f"{tiny_bert_directory}: expected the tensors that its config.json describes, found 6")
    assert sorted(problems) == [
        "dtype: encoder.layer.2.intermediate.dense.bias: expected one of ['float16', 'bfloat16', 'float32', "
        "'float64'], found I8",
        "extra: bert.embeddings.LayerNorm.bias [16]",
        "extra: encoder.layer.0.adapter.weight [2, 2]",
        "missing: embeddings.LayerNorm.weight [16]",
        "missing: encoder.layer.1.output.dense.bias [16]",
        "shape: encoder.layer.0.attention.self.key.weight: expected [16, 16], found [16, 4]",
    ]


@pytest.mark.parametrize(("layers", "kind", "count"), [(4, "missing", 16), (2, "extra", 16)])
def test_a_config_of_another_depth(tiny_bert_directory: Path, layers: int, kind: str, count: int) -> None:
    set_config(tiny_bert_directory, num_hidden_layers=layers)
    with pytest.raises(UserError) as error:
        load(tiny_bert_directory)
    assert str(error.value).count(f"{kind}: encoder.layer.{min(layers, 3) if layers > 3 else 2}.") == count


class Bomb:
    def __reduce__(self) -> tuple:
        return pytest.fail, ("the pickle was run",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "model.joblib"])
def test_pickles_are_refused_unread(tiny_bert_directory: Path, name: str) -> None:
    (tiny_bert_directory / "model.safetensors").unlink()
    (tiny_bert_directory / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match=rf"expected model.safetensors, found only {name}, .*\n?.*save_pretrained"):
        load(tiny_bert_directory)


@pytest.mark.parametrize("content", [b"", b"\x07", b"not a safetensors file at all", None])
def test_a_damaged_file_is_named(tiny_bert_directory: Path, content: bytes | None) -> None:
    path = tiny_bert_directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    with pytest.raises(UserError, match=r"model\.safetensors: expected a safetensors file, found one that cannot be"):
        load(tiny_bert_directory)


def test_no_weights_at_all(tiny_bert_directory: Path) -> None:
    (tiny_bert_directory / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"expected the weights in model\.safetensors, found no such file"):
        load(tiny_bert_directory)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, r"model_type: expected one of \['bert'\], found 'roberta'"),
        ({"model_type": "remove"}, r"model_type: expected one of \['bert'\], found none"),
        ({"is_decoder": True}, "is_decoder: expected False, found True"),
        ({"position_embedding_type": "relative_key"}, "expected 'absolute', found 'relative_key'"),
        ({"hidden_act": "silu"}, "hidden_act: expected one of .*'gelu_new'.*, found 'silu'"),
        ({"hidden_act": ["gelu"]}, r"hidden_act: expected one of .*, found \['gelu'\]"),
        ({"layer_norm": "rms"}, r"layer_norm: expected one of \['standard', 'unbiased'\], found 'rms'"),
        ({"hidden_size": "remove"}, r"expected the keys \['hidden_size'\], found \[.*'vocab_size'"),
        ({"hidden_size": "16"}, "hidden_size: expected int, found '16'"),
        ({"vocab_size": True}, "vocab_size: expected int, found True"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: expected 1 to 1000, found 0"),
        ({"num_hidden_layers": 10_000_000}, "num_hidden_layers: expected 1 to 1000, found 10000000"),
        ({"num_hidden_layers": 1e7}, "num_hidden_layers: expected int, found 10000000.0"),
        ({"hidden_size": 2**64}, "hidden_size: expected a number of at most 64 bits"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps: expected a finite number, found nan"),
        ({"layer_norm_eps": -1.0}, "layer_norm_eps: expected 0 or more, found -1.0"),
        ({"initializer_range": 10**400}, "initializer_range: expected float, found 1000"),
        ({"num_attention_heads": 5}, "hidden_size: expected a multiple of num_heads = 5, found 16"),
    ],
)
def test_a_config_that_is_no_bert(tiny_bert_directory: Path, changes: dict, message: str) -> None:
    set_config(tiny_bert_directory, **changes)
    with pytest.raises(UserError, match=message) as error:
        read_config(tiny_bert_directory)
    assert str(error.value).count(str(tiny_bert_directory / "config.json")) == 1


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe{}"])
def test_a_config_that_cannot_be_read(tiny_bert_directory: Path, content: bytes | None) -> None:
    path = tiny_bert_directory / "config.json"
    path.unlink() if content is None else path.write_bytes(content)
    for read in (read_config, config_json.ConfigJson.read, weights.load_model):
        with pytest.raises(
            UserError, match=r"expected a (model directory|JSON object).*config\.json|config\.json: exp"
        ):
            read(tiny_bert_directory)


def test_an_older_config_gets_bert_s_defaults(tiny_bert_directory: Path) -> None:
    gone = ("max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps", "initializer_range")
    set_config(tiny_bert_directory, **dict.fromkeys(gone, "remove"))
    config = read_config(tiny_bert_directory)
    assert (config.max_positions, config.token_types, config.activation) == (512, 2, Activation.GELU)
    assert (config.layer_norm_eps, config.init_std) == (1e-12, 0.02)
    assert config.layer_norm is LayerNormKind.STANDARD


def small_model(num_layers: int = 3, **changes: object) -> tuple[dict, BertConfig]:
    """Random parameters without a zero or a one, so that no two leaves can be confused."""
    sizes = {
        "vocab_size": 30,
        "hidden_size": 12,
        "num_layers": num_layers,
        "num_heads": 2,
        "feed_forward_size": 20,
        "max_positions": 9,
        "num_classes": 5,
        "exit_size": 8,
        "layer_norm_eps": 1e-7,
        "activation": Activation.GELU_TANH,
    }
    config = BertConfig(**(sizes | changes))
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: Bert(config).init(key), jax.random.key(0))
    return jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape, np.float32), shapes), config


@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_save_and_load_bit_for_bit(tmp_path: Path, num_layers: int) -> None:
    params, config = small_model(num_layers)
    extra = {"labels": ["neg", "好"], "speed": 0.5}
    weights.save_model(tmp_path / "new" / "model", params, config, extra=extra)
    loaded, loaded_config, loaded_extra = weights.load_model(tmp_path / "new" / "model")
    assert_same(loaded, params)
    assert (loaded_config, loaded_extra) == (config, extra)
    assert config_json.ConfigJson.read(tmp_path / "new" / "model").is_fastbert
    assert sorted(path.name for path in (tmp_path / "new" / "model").iterdir()) == ["config.json", "model.safetensors"]


def test_exits_apart_are_loaded_bit_for_bit_too(tmp_path: Path) -> None:
    params, config = small_model()
    weights.save_model(tmp_path, params, config, extra={}, exits_apart=True)
    assert_same(weights.load_model(tmp_path)[0], params)
    assert_same(load_backbone(tmp_path, config), params["backbone"])
    write_index(tmp_path, shard(tmp_path))
    assert_same(weights.load_model(tmp_path)[0], params)
    (tmp_path / "fastbert_exits.safetensors").unlink()
    with pytest.raises(UserError, match="missing: exits.1.narrow.weight"):
        weights.load_model(tmp_path)


def test_exits_in_two_files_are_refused(tmp_path: Path) -> None:
    params, config = small_model()
    weights.save_model(tmp_path, params, config, extra={}, exits_apart=True)
    weights.save_model(tmp_path, params, config, extra={})
    with pytest.raises(UserError, match="twice: exits.1.narrow.weight and exits.1.narrow.weight"):
        weights.load_model(tmp_path)


def test_others_may_read_the_weights_where_they_may_read_the_config(tmp_path: Path) -> None:
    params, config = small_model()
    weights.save_model(tmp_path, params, config, extra={})
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode


@pytest.mark.parametrize("kind", LayerNormKind)
def test_a_backbone_alone_comes_back_with_its_layer_norm(tmp_path: Path, kind: LayerNormKind) -> None:
    params, config = small_model(layer_norm=kind)
    weights.save_model(tmp_path, params, config, extra={}, exits_apart=True)
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    (tmp_path / "fastbert_exits.safetensors").unlink()
    weights.save_tensors(tmp_path, tensors, config, extra=None)
    assert not config_json.ConfigJson.read(tmp_path).is_fastbert
    read = config_json.read_bert_config(tmp_path, num_classes=5, exit_size=8, exit_heads=2)
    assert read == config
    assert_same(load_backbone(tmp_path, read), params["backbone"])
    weights.save_model(tmp_path, params, config, extra={})
    assert weights.load_model(tmp_path)[1] == config


def test_jax_arrays_are_saved_too(tmp_path: Path) -> None:
    params, config = small_model()
    weights.save_model(tmp_path, jax.tree.map(jax.numpy.asarray, params), config, extra={})
    assert_same(weights.load_model(tmp_path)[0], params)


def test_a_saved_model_is_a_hugging_face_directory(tmp_path: Path) -> None:
    params, config = small_model()
    weights.save_model(tmp_path, params, config, extra={})
    assert_same(load_backbone(tmp_path, config), params["backbone"])
    read = config_json.read_bert_config(tmp_path, num_classes=5, exit_size=8, exit_heads=2)
    assert read == config
    values = json.loads((tmp_path / "config.json").read_text())
    assert (values["model_type"], values["hidden_act"]) == ("bert", "gelu_pytorch_tanh")
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}
        np.testing.assert_array_equal(
            file.get_tensor("bert.encoder.layer.1.output.dense.weight"),
            params["backbone"]["layers"]["output"]["kernel"][1].T,
        )
        np.testing.assert_array_equal(
            file.get_tensor("exits.2.classifier.weight"), params["lower_exits"]["classifier"]["kernel"][1].T
        )
        np.testing.assert_array_equal(file.get_tensor("exits.3.narrow.bias"), params["last_exit"]["narrow"]["bias"])


def test_an_interrupted_save_keeps_the_model_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params, config = small_model()
    weights.save_model(tmp_path, params, config, extra={"save": 1})

    def full_disk(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "flush", full_disk)
    with pytest.raises(OSError, match="No space left"):
        weights.save_model(tmp_path, jax.tree.map(lambda leaf: leaf + 1, params), config, extra={"save": 2})
    loaded, _, extra = weights.load_model(tmp_path)
    assert_same(loaded, params)
    assert extra == {"save": 1}
    assert len(list(tmp_path.iterdir())) == 2


def test_missing_exits_are_listed(tmp_path: Path) -> None:
    params, config = small_model()
    weights.save_model(tmp_path, params, config, extra={})

    def damage(tensors: Tensors) -> Tensors:
        del tensors["exits.1.key.weight"], tensors["bert.embeddings.LayerNorm.bias"]
        return tensors | {"exits.4.key.weight": np.zeros((8, 8), np.float32)}

    rewrite(tmp_path, damage)
    with pytest.raises(UserError) as error:
        weights.load_model(tmp_path)
    assert sorted(str(error.value).split("\n  ")[1:]) == [
        "extra: exits.4.key.weight [8, 8]",
        "missing: embeddings.LayerNorm.bias [12]",
        "missing: exits.1.key.weight [8, 8]",
    ]


def test_a_plain_bert_is_no_fastbert(tiny_bert_directory: Path) -> None:
    assert not config_json.ConfigJson.read(tiny_bert_directory).is_fastbert
    with pytest.raises(UserError, match="expected the 'fastbert' section of a trained model, found none; train one"):
        weights.load_model(tiny_bert_directory)


@pytest.mark.parametrize("size", [None, 0, "8", True])
def test_a_fastbert_section_without_its_sizes(tmp_path: Path, size: object) -> None:
    params, config = small_model()
    weights.save_model(tmp_path, params, config, extra={})
    section = json.loads((tmp_path / "config.json").read_text())["fastbert"] | {"exit_size": size}
    set_config(tmp_path, fastbert=section)
    with pytest.raises(UserError, match=r"config\.json: (model )?exit_size: expected (int|1 or more), found"):
        weights.load_model(tmp_path)


def test_parameters_of_another_model_are_not_saved(tmp_path: Path) -> None:
    params, config = small_model()
    other, _ = small_model(hidden_size=16)
    with pytest.raises(ValueError, match=r"embeddings/token/embedding: expected float32 \(30, 12\), found"):
        weights.save_model(tmp_path, other, config, extra={})
    with pytest.raises(ValueError, match="missing or unknown: .*'last_exit/query/kernel'"):
        weights.save_model(tmp_path, {key: params[key] for key in ("backbone", "lower_exits")}, config, extra={})
    with pytest.raises(ValueError, match="expected float32"):
        weights.save_model(tmp_path, jax.tree.map(lambda leaf: leaf.astype(np.float16), params), config, extra={})
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_beyond_the_embedding_table() -> None:
    _, config = small_model()
    weights.check_vocabulary(30, config)
    with pytest.raises(UserError, match="at most 30 tokens, .* found one of 31; use the tokenizer files that came"):
        weights.check_vocabulary(31, config)


def test_token_types_that_the_model_does_not_have() -> None:
    _, config = small_model()
    config = dataclasses.replace(config, token_types=1)
    weights.check_token_types(np.zeros(3, np.int32), config)
    weights.check_token_types(np.zeros(0, np.int32), config)
    with pytest.raises(UserError, match="expected single texts, as the model has 1 token type .*, found pairs"):
        weights.check_token_types(np.array([0, 1], np.int32), config)


def test_minilm_loads(minilm_directory: Path) -> None:
    config = read_config(minilm_directory, exit_size=128)
    assert (config.num_layers, config.hidden_size, config.num_heads) == (6, 384, 12)
    backbone = load_backbone(minilm_directory, config)
    assert backbone["layers"]["output"]["kernel"].shape == (6, 1536, 384)
