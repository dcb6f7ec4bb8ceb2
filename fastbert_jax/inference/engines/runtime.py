"""A network on the device: its parts as pure functions, its parameters, and its compiled programs, counted.

All engines run these functions, so that they do the same arithmetic.
Shapes in names: B texts (one per row), S sequence, H hidden, L layers, N classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fastbert_jax.config import ExitConfig
from fastbert_jax.inference.policies import Policy, PolicyState, make_policy
from fastbert_jax.model.network import Array, Layered, Params
from fastbert_jax.model.sharding import param_shardings, sharding_of
from fastbert_jax.text.batches import Batch


class Texts(NamedTuple):
    """Texts between two layers, one per row; engines that keep them in queues have more rows than a batch."""

    hidden_BxSxH: jax.Array
    text_BxS: Array
    cls_BxK: Array
    state: PolicyState
    ticket_B: Any = ()
    """int32; which text it is, for engines that mix batches."""


class ExitResult(NamedTuple):
    """The result of one exit for `[B]` texts, or of all exits for `[L, B]`."""

    probabilities_BxN: jax.Array
    uncertainty_B: jax.Array


class Runtime:
    """One network, ready to run. Parameters may be those of a backbone alone; then only `hidden_states` runs."""

    def __init__(
        self,
        params: Params,
        network: Layered,
        *,
        exits: ExitConfig = ExitConfig(),  # noqa: B008, frozen
        mesh: Mesh | None = None,
        policy: Policy | None = None,
    ) -> None:
        """Put one copy of the parameters on the devices of a mesh; none: on the one that jax chooses.

        Devices that share the parameters (`fsdp`, `tensor`) work together on every batch, and each has its results.
        Abstract parameters keep their shardings: programs can then be lowered for devices that are not attached.

        Raises:
          UserError: a size of the model that the mesh does not divide.
        """
        self.network = network
        self.policy = policy or make_policy(exits)
        wanted = exits.asked(network.num_layers)
        self.asked = tuple(has and is_wanted for has, is_wanted in zip(network.exits, wanted, strict=True))
        """For each layer, whether its exit is evaluated; the last one is."""
        self.devices: tuple[jax.Device | None, ...] = (None,) if mesh is None else tuple(mesh.devices.flat)
        self._mesh = mesh if len(self.devices) > 1 else None
        """Of several devices; None: there is one."""
        place: Any = self.devices[0]
        if self._mesh:  # layers and exits still stacked
            shardings = param_shardings(self._mesh, network)
            place = {part: shardings[part] for part in params}
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params)):
            dtypes = jax.eval_shape(network.in_use, params)
            self.params: Params = jax.tree.map(lambda leaf, used: leaf.update(dtype=used.dtype), params, dtypes)
        else:
            self.params = jax.device_put(network.in_use(params), place)
        self.compiled_programs = 0
        self.full_depth: Callable[[Batch], ExitResult] = partial(self.jit(self._run_full_depth), self.params)
        """The last exit's result `[B, ...]` by plain BERT: all layers, no lower exit."""
        self.all_exits: Callable[[Batch], ExitResult] = partial(self.jit(self.run_all_exits), self.params)
        """Every exit's result, `[L, B, ...]`; see `run_all_exits`."""
        self.hidden_states: Callable[[Batch], jax.Array] = partial(self.jit(self._run_hidden_states), self.params)
        """Float32 `[L + 1, B, S, H]`, the embeddings first."""

    def jit(self, function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
        """`jax.jit` that counts its programs, one for each set of shapes, in `compiled_programs`."""

        @wraps(function)
        def traced(*arguments: Any, **keywords: Any) -> Any:
            self.compiled_programs += 1
            return function(*arguments, **keywords)

        if self._mesh:
            settings = {"out_shardings": sharding_of(self._mesh, ())} | settings
        return jax.jit(traced, **settings)

    @cached_property
    def parts(self) -> list[tuple[Params, Params]]:
        """The trees of every layer and of its exit, so that one program, compiled once, runs any of them.

        The last exit stands in where a layer has none.
        """

        def unstack(params: Params) -> list[tuple[Params, Params]]:
            stacked = self.network.stacked_layers(params)
            return [
                (jax.tree.map(lambda leaf, layer=layer: leaf[layer], stacked), self.network.exit_of(params, layer))
                for layer in range(self.network.num_layers)
            ]

        parts: list[tuple[Params, Params]] = jax.jit(unstack)(self.params)
        return parts

    @cached_property
    def steps(self) -> list[tuple[Params, Params | None]]:
        """The same for `step`, without the exits that are not asked."""
        asked = zip(self.parts, self.asked, strict=True)
        return [(layer, exit_ if is_asked else None) for (layer, exit_), is_asked in asked]

    def enter(self, params: Params, batch: Batch, ticket_B: Any = ()) -> Texts:
        """The texts of a batch before the first layer."""
        state = jax.tree.map(jnp.asarray, self.policy.start(len(batch.text_BxS)))
        hidden_BxSxH = self.network.embed(params, batch)
        return Texts(hidden_BxSxH, jnp.asarray(batch.text_BxS), jnp.asarray(batch.cls_BxK), state, ticket_B)

    def step(self, layer: Params, exit_: Params | None, texts: Texts) -> tuple[Texts, ExitResult | None]:
        """The texts after one layer, and the result of its exit; without an exit there is none."""
        hidden_BxSxH, _ = self.network.layer(layer, texts.hidden_BxSxH, texts.text_BxS, packed=False)
        texts = texts._replace(hidden_BxSxH=hidden_BxSxH)
        return (texts, None) if exit_ is None else self.judge(exit_, texts)

    def judge(self, exit_: Params, texts: Texts) -> tuple[Texts, ExitResult]:
        """The texts with the policy's state after one exit, and its result."""
        logits_BxN = self.network.exit(exit_, texts.hidden_BxSxH, texts.text_BxS, texts.cls_BxK)[:, 0]
        state, uncertainty_B = self.policy.judge(texts.state, logits_BxN)
        return texts._replace(state=state), ExitResult(jax.nn.softmax(logits_BxN), uncertainty_B)

    def run_all_exits(self, params: Params, batch: Batch) -> ExitResult:
        """Every exit's result, `[L, B, ...]`, by one forward pass.

        An exit that is not asked is wholly uncertain; a layer without an exit also gives every class one probability.
        """
        trace = self.network.trace(params, batch)
        found_LxBxN = trace.exit_logits_LxBxKxN[:, :, 0]
        layers_with_exit = np.flatnonzero(self.network.exits)
        logits_LxBxN = jnp.zeros((self.network.num_layers, *found_LxBxN.shape[1:]))
        logits_LxBxN = logits_LxBxN.at[layers_with_exit].set(found_LxBxN)

        def judge(state: PolicyState, at: tuple[jax.Array, jax.Array]) -> tuple[PolicyState, jax.Array]:
            asked, logits_BxN = at
            new_state, uncertainty_B = self.policy.judge(state, logits_BxN)
            return if_asked(asked, new_state, state), jnp.where(asked, uncertainty_B, 1.0)

        start = jax.tree.map(jnp.asarray, self.policy.start(len(batch.text_BxS)))
        _, uncertainty_LxB = jax.lax.scan(judge, start, (jnp.array(self.asked), logits_LxBxN))
        return ExitResult(jax.nn.softmax(logits_LxBxN), uncertainty_LxB)

    def _run_full_depth(self, params: Params, batch: Batch) -> ExitResult:
        hidden_BxSxH, state = self.network.last_hidden_state(params, batch), self.policy.start(len(batch.text_BxS))
        last_exit = self.network.exit_of(params, self.network.num_layers - 1)
        return self.judge(last_exit, Texts(hidden_BxSxH, batch.text_BxS, batch.cls_BxK, state))[1]

    def _run_hidden_states(self, params: Params, batch: Batch) -> jax.Array:
        return self.network.hidden_states(params, batch).astype(jnp.float32)


def if_asked(asked: jax.Array, new: PolicyState, old: PolicyState) -> PolicyState:
    """The policy's state after an exit; that before it where the exit is not asked."""
    return jax.tree.map(lambda new, old: jnp.where(asked, new, old), new, old)
