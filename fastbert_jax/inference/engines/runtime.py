"""A model on the device: its parts as pure functions, its parameters, and its compiled programs, counted.

All engines are built from the same parts, so that they do the same arithmetic.
Shapes in names: B texts (one per row), S sequence, H hidden, L layers, N classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fastbert_jax.config import BertConfig, ExitConfig, Precision
from fastbert_jax.inference.policies import Memory, make_policy
from fastbert_jax.model.bert import Embeddings, EncoderLayer
from fastbert_jax.model.exits import Exit
from fastbert_jax.model.fastbert import Params, compute_dtype, exit_params, layer_params
from fastbert_jax.model.sharding import param_shardings, sharding_of
from fastbert_jax.text.batches import Batch

Array = jax.Array | np.ndarray


class Answer(NamedTuple):
    """What exits say of `[B]` texts (or, after all exits, of `[L, B]`)."""

    probabilities_BxN: jax.Array
    uncertainty_B: jax.Array


class Runtime:
    """One model, ready to run. Parameters may be those of a backbone alone; then only `hidden_states` runs."""

    def __init__(
        self,
        params: Params,
        config: BertConfig,
        *,
        precision: Precision = Precision.FLOAT32,
        exits: ExitConfig = ExitConfig(),  # noqa: B008, frozen
        mesh: Mesh | None = None,
    ) -> None:
        """Put one copy of the parameters on the devices of a mesh; none: on the one that jax chooses.

        Devices that share the parameters (`fsdp`, `tensor`) work together on every batch, and each has its answers.

        Raises:
          UserError: a size of the model that the mesh does not divide.
        """
        self.config = config
        self.policy = make_policy(exits)
        self.asked = exits.asked(config.num_layers)
        """For each layer, whether its exit is asked; the last one's is."""
        self.devices: tuple[jax.Device | None, ...] = (None,) if mesh is None else tuple(mesh.devices.flat)
        self._mesh = mesh if len(self.devices) > 1 else None
        """Of several devices; None: there is one."""
        self.params: Params = jax.device_put(params, self._shardings(params) if self._mesh else self.devices[0])
        self.compiled_programs = 0
        self.dtype = compute_dtype(precision)
        """Of hidden states."""
        self._embeddings = Embeddings(config, dtype=self.dtype)
        self._layer = EncoderLayer(config, dtype=self.dtype)
        self._exit = Exit(config, dtype=self.dtype)
        self._full_depth = self.jit(self._run_full_depth)
        self._all_exits = self.jit(self._run_all_exits)
        self._hidden_states = self.jit(self._run_hidden_states)

    def jit(self, function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
        """`jax.jit` that counts its programs, one for each set of shapes, in `compiled_programs`."""

        @functools.wraps(function)
        def traced(*arguments: Any, **keywords: Any) -> Any:
            self.compiled_programs += 1
            return function(*arguments, **keywords)

        if self._mesh:
            settings = {"out_shardings": sharding_of(self._mesh, ())} | settings
        return jax.jit(traced, **settings)

    def _shardings(self, params: Params) -> Params:
        """Where the leaves of `params` lie on the mesh, layers and exits still stacked."""
        assert self._mesh is not None
        shardings = param_shardings(self._mesh, self.config)
        return {part: shardings[part] for part in params}

    @functools.cached_property
    def layers(self) -> list[Params]:
        """The tree of every layer, so that one program, compiled once, runs any of them."""
        return jax.jit(lambda params: [layer_params(params, i) for i in range(self.config.num_layers)])(self.params)

    @functools.cached_property
    def exits(self) -> list[Params]:
        """The tree of every exit, the teacher's last."""
        return jax.jit(lambda params: [exit_params(params, i) for i in range(self.config.num_layers)])(self.params)

    @functools.cached_property
    def stacked_exits(self) -> Params:
        """All exits stacked `[L, ...]`, the teacher last, to scan over beside the layers."""
        return jax.jit(lambda exits: jax.tree.map(lambda *leaves: jnp.stack(leaves), *exits))(self.exits)

    def embed(self, params: Params, batch: Batch) -> jax.Array:
        """The embeddings `[B, S, H]` of a batch; `params` is the whole tree."""
        variables = {"params": params["backbone"]["embeddings"]}
        return self._embeddings.apply(variables, batch.token_ids_BxS, batch.token_type_BxS, batch.position_BxS)

    def run_layer(self, layer: Params, hidden_BxSxH: jax.Array, text_BxS: Array) -> jax.Array:
        """The output `[B, S, H]` of one layer."""
        hidden_BxSxH, _ = self._layer.apply({"params": layer}, hidden_BxSxH, text_BxS)
        return hidden_BxSxH

    def run_exit(
        self, exit_: Params, memory: Memory, hidden_BxSxH: jax.Array, text_BxS: Array, cls_BxK: Array
    ) -> tuple[Memory, Answer]:
        """What one exit says, and the policy's memory after it."""
        logits_BxN = self._exit.apply({"params": exit_}, hidden_BxSxH, text_BxS, cls_BxK)[:, 0]
        memory, uncertainty_B = self.policy.judge(memory, logits_BxN)
        return memory, Answer(jax.nn.softmax(logits_BxN), uncertainty_B)

    def run_exit_if_asked(
        self,
        asked: jax.Array,
        exit_: Params,
        memory: Memory,
        hidden_BxSxH: jax.Array,
        text_BxS: Array,
        cls_BxK: Array,
    ) -> tuple[Memory, Answer]:
        """For a loop over all layers in one program: an exit that is not asked is unsure and remembers nothing."""
        new_memory, answer = self.run_exit(exit_, memory, hidden_BxSxH, text_BxS, cls_BxK)
        memory = jax.tree.map(lambda new, old: jnp.where(asked, new, old), new_memory, memory)
        return memory, answer._replace(uncertainty_B=jnp.where(asked, answer.uncertainty_B, 1.0))

    def full_depth(self, batch: Batch) -> Answer:
        """The teacher's answer `[B, ...]` by plain BERT: all layers, no student exit."""
        return self._full_depth(self.params, batch)

    def all_exits(self, batch: Batch) -> Answer:
        """Every exit's answer, `[L, B, ...]`; one that is not asked is wholly uncertain."""
        return self._all_exits(self.params, self.stacked_exits, batch)

    def hidden_states(self, batch: Batch) -> jax.Array:
        """Float32 `[L + 1, B, S, H]`, the embeddings first."""
        return self._hidden_states(self.params, batch)

    def _run_full_depth(self, params: Params, batch: Batch) -> Answer:
        def step(hidden_BxSxH: jax.Array, layer: Params) -> tuple[jax.Array, None]:
            return self.run_layer(layer, hidden_BxSxH, batch.text_BxS), None

        hidden_BxSxH, _ = jax.lax.scan(step, self.embed(params, batch), params["backbone"]["layers"])
        memory = self.policy.start(len(batch.text_BxS))
        _, answer = self.run_exit(params["last_exit"], memory, hidden_BxSxH, batch.text_BxS, batch.cls_BxK)
        return answer

    def _run_all_exits(self, params: Params, exits: Params, batch: Batch) -> Answer:
        def step(carry: tuple[jax.Array, Memory], at: tuple[Params, Params, jax.Array]) -> tuple[tuple, Answer]:
            (hidden_BxSxH, memory), (layer, exit_, asked) = carry, at
            hidden_BxSxH = self.run_layer(layer, hidden_BxSxH, batch.text_BxS)
            memory, answer = self.run_exit_if_asked(asked, exit_, memory, hidden_BxSxH, batch.text_BxS, batch.cls_BxK)
            return (hidden_BxSxH, memory), answer

        start = self.embed(params, batch), self.policy.start(len(batch.text_BxS))
        return jax.lax.scan(step, start, (params["backbone"]["layers"], exits, jnp.array(self.asked)))[1]

    def _run_hidden_states(self, params: Params, batch: Batch) -> jax.Array:
        def step(hidden_BxSxH: jax.Array, layer: Params) -> tuple[jax.Array, jax.Array]:
            hidden_BxSxH = self.run_layer(layer, hidden_BxSxH, batch.text_BxS)
            return hidden_BxSxH, hidden_BxSxH

        embedded_BxSxH = self.embed(params, batch)
        _, hidden_LxBxSxH = jax.lax.scan(step, embedded_BxSxH, params["backbone"]["layers"])
        return jnp.concatenate([embedded_BxSxH[None], hidden_LxBxSxH]).astype(jnp.float32)
