"""Query tokens weighted by how rare they are: MaxSim counts every token of a query alike, words like "the" included.

    weights = rarity_weights(tokenizer, texts)                       # (vocabulary,)
    encoder = build_encoder(query_weights=weights, query_centroid="sum")

The weight scales the token's vector, so a cluster's sum weighs its tokens too and nothing changes at search time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers.base.modules import Module
from torch import Tensor, nn


class QueryTokenWeights(Module):
    """Scales the token vectors of queries by a weight a token of the vocabulary; documents pass unchanged.

    Place it behind the token-level ``Normalize`` module and before the pooling.  The weights of a query are brought to
    a mean of 1, so that scores keep the range they have without weights.  A token of weight 0 is left out; a query of such
    tokens alone keeps them all, and they weigh alike.

    Args:
        vocabulary: Tokens of the vocabulary.
        weights: (vocabulary,) weights of 0 or more; all 1 by default.
    """

    config_keys: list[str] = ["vocabulary"]
    forward_kwargs: set[str] = {"task"}

    def __init__(self, vocabulary: int, weights: Tensor | None = None) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        given = torch.ones(vocabulary) if weights is None else weights.detach().float()
        if given.shape != (vocabulary,) or not bool(torch.isfinite(given).all()) or bool((given < 0).any()):
            raise ValueError(f"weights are {vocabulary} finite numbers of 0 or more, one a token of the vocabulary.")
        self.weights = nn.Parameter(given.clone(), requires_grad=False)

    def forward(self, features: dict[str, Tensor], task: str | None = None) -> dict[str, Tensor]:  # type: ignore[override]
        """Scale ``token_embeddings`` (B, T, D) of a query."""
        if task == "query" and "input_ids" in features:
            mask = features["attention_mask"].bool()
            weights = self.weights[features["input_ids"]] * mask
            some = weights.sum(dim=1, keepdim=True) > 0
            mask = torch.where(some, weights > 0, mask)
            weights = torch.where(some, weights, mask.to(weights.dtype))
            weights = weights * mask.sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True).clamp_min(1e-12)
            features["token_embeddings"] = features["token_embeddings"] * weights.unsqueeze(-1)
            features["attention_mask"] = mask
        return features

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> QueryTokenWeights:  # type: ignore[override]
        places = ("token", "cache_folder", "revision", "local_files_only")
        hub = {"subfolder": subfolder, **{key: kwargs[key] for key in places if key in kwargs}}
        module = cls(**cls.load_config(model_name_or_path=model_name_or_path, **hub))
        return cls.load_torch_weights(model_name_or_path=model_name_or_path, model=module, **hub)  # type: ignore[return-value]


def rarity_weights(
    tokenizer: Any, texts: Iterable[str], *, power: float = 0.5, ignored: Iterable[str] = (), batch_size: int = 1024
) -> Tensor:
    """Inverse document frequencies of tokens, tempered.

    Args:
        tokenizer: A Hugging Face tokenizer.
        texts: What the frequencies are counted in.
        power: 1 is the plain log((n + 1) / (df + 0.5)); 0 makes all weights 1.  The square root retrieves best.
        ignored: Tokens that weigh nothing, such as those that the tokenizer adds to every text.
        batch_size: Texts that are tokenised together.

    Returns:
        (vocabulary,) float32.  Special tokens, which every text has, weigh next to nothing even if they are not ignored.
    """
    frequencies = torch.zeros(len(tokenizer))
    count = 0
    batch: list[str] = []

    def add() -> None:
        for ids in tokenizer(batch, truncation=False, verbose=False)["input_ids"]:
            frequencies[list(set(ids))] += 1

    for text in texts:
        batch.append(text)
        count += 1
        if len(batch) == batch_size:
            add()
            batch.clear()
    if batch:
        add()
    weights = ((count + 1) / (frequencies + 0.5)).log().clamp_min(0.0) ** power
    weights[tokenizer.convert_tokens_to_ids(list(ignored))] = 0.0
    return weights
