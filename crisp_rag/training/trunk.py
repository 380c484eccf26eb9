"""The frozen part of a backbone, run once for every text.

Where only the upper layers are trained, the lower ones give the same hidden states in every epoch, and in every run
from the same backbone.  Inside ``with frozen_trunk(model, layers=2):`` the model's forward pass takes them from a
memory and runs the upper layers alone; a text that is not in the memory yet is passed through the lower layers by
itself, so that what is remembered does not depend on the batch it came in, and a resumed run sees the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from crisp_rag.errors import InvalidInputError

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder


def transformer_layers(model: MultiVectorEncoder) -> nn.ModuleList:
    """The backbone's list of transformer layers, lowest first.

    Raises:
        InvalidInputError: if it has none.
    """
    stacks = [module for module in model[0].modules() if isinstance(module, nn.ModuleList)]
    if not stacks:
        raise InvalidInputError("The backbone has no list of layers to choose from; use layers=None.")
    return max(stacks, key=len)


class _Reached(Exception):
    """The lower layers are done."""


class TrunkMemory:
    """Hidden states of texts, (T, D) each, by their token ids.

    Args:
        megabytes: What it may hold; what does not fit is computed anew each time.
    """

    def __init__(self, megabytes: int = 4000) -> None:
        self._room = megabytes * 2**20
        self._states: dict[bytes, Tensor] = {}

    def __len__(self) -> int:
        """Texts that it holds."""
        return len(self._states)

    def get(self, ids: Tensor) -> Tensor | None:
        """The states of a text's (T,) token ids, None if it does not hold them."""
        return self._states.get(ids.cpu().numpy().tobytes())

    def put(self, ids: Tensor, states: Tensor) -> None:
        """Keep the states of a text, which lie on the CPU, if there is room; states that lie in a file take none."""
        size = 0 if isinstance(states.numpy().base, np.memmap) else states.nbytes
        if size <= self._room:
            self._room -= size
            self._states[ids.cpu().numpy().tobytes()] = states


@contextmanager
def frozen_trunk(
    model: MultiVectorEncoder, layers: int | None, memory: TrunkMemory | None = None
) -> Iterator[TrunkMemory | None]:
    """Have the model's forward pass take the lower layers' part from a memory while the context lasts.

    Args:
        model: The encoder in training, its lower layers frozen and without dropout.
        layers: How many upper layers are trained; None or all of them: nothing is frozen and nothing happens.
        memory: What is remembered already, of the same backbone and the same ``layers``; a new one by default.
    """
    if layers is None or layers >= len(transformer_layers(model)):
        yield None
        return
    memory = memory if memory is not None else TrunkMemory()
    with _Trunk(model, layers, memory).installed():
        yield memory


class _Trunk:
    """The layers below the trained ones, and what they made of texts so far."""

    def __init__(self, model: MultiVectorEncoder, layers: int, memory: TrunkMemory) -> None:
        self._stack = transformer_layers(model)
        self._below = len(self._stack) - layers
        self._backbone = cast(Any, model[0].model)
        self._dtype = next(self._backbone.parameters()).dtype
        self._memory = memory
        self._batch: tuple[Tensor, Tensor] | None = None
        self._computing = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Lower layers do nothing but for a new text; the lowest one hands on what is remembered."""
        lower = list(self._stack)[: self._below]
        self._backbone.forward = self._noting_the_batch(self._backbone.forward)
        for number, layer in enumerate(lower):
            # On the instance, so that parameters, names and checkpoints stay as they are.
            layer.forward = self._recalling(layer.forward) if number == 0 else self._passing_on(layer.forward)
        try:
            yield
        finally:
            for module in (self._backbone, *lower):
                del module.forward

    def _noting_the_batch(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def note(input_ids: Tensor, attention_mask: Tensor, **kwargs: Any) -> Any:
            if not self._computing:
                self._batch = (input_ids, attention_mask)
            return forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)

        return note

    def _recalling(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def recall(*args: Any, **kwargs: Any) -> Tensor:
            if self._computing or self._batch is None:
                return forward(*args, **kwargs)
            return self._hidden_states(*self._batch)

        return recall

    def _passing_on(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def pass_on(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return forward(hidden_states, *args, **kwargs) if self._computing else hidden_states

        return pass_on

    def _hidden_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) of what goes into the first trained layer, zero on padding."""
        lengths = mask.sum(dim=1).tolist()
        rows = [self._row(ids[row, :length]) for row, length in enumerate(lengths)]
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return nn.functional.pad(padded, (0, 0, 0, ids.shape[1] - padded.shape[1]))

    def _row(self, ids: Tensor) -> Tensor:
        states = self._memory.get(ids)
        if states is None:
            states = self._compute(ids.unsqueeze(0)).cpu()  # a GPU's memory is for the batch
            self._memory.put(ids, states)
        return states.to(ids.device, self._dtype)

    def _compute(self, ids: Tensor) -> Tensor:
        """(T, D) of one text, (1, T) ids without padding."""
        reached: list[Tensor] = []

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            reached.append(args[0] if args else kwargs["hidden_states"])
            raise _Reached

        handle = self._stack[self._below].register_forward_pre_hook(stop, with_kwargs=True)
        self._computing = True
        try:
            with torch.no_grad():
                self._backbone(input_ids=ids, attention_mask=torch.ones_like(ids))
        except _Reached:
            pass
        finally:
            self._computing = False
            handle.remove()
        return reached[0][0].detach().clone()
