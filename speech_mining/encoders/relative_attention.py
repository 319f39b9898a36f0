"""SONAR's attention with relative positions, computed in less memory: the same numbers, the same parameters.

fairseq2 0.8.1's `RelativePositionSDPA` multiplies every query with all 2 S - 1 positions, of which a query uses S, and
copies the (N, H, S, 2 S) result three times to shift it. Here queries go in blocks, each with the positions it can
see, the shift is a view, and torch's fused kernel does the rest. Only for inference on the CPU, where it was measured.

Dai et al. 2019, "Transformer-XL: attentive language models beyond a fixed-length context", appendix B.
"""

from __future__ import annotations

from typing import Any

BLOCK = 128
"""Queries at once: their positions' scores, (N, H, 128, S + 127) float32, stay near the caches for S up to 1 000."""


def quicken(model: Any) -> int:
    """Replace the forward of every `RelativePositionSDPA` in `model`, in place; returns how many there were.

    Parameters stay where they were, so that the model saves and loads as before.
    """
    found = [module for module in _attentions(model) if not isinstance(module.forward, _Quick)]
    for module in found:
        module.forward = _Quick(module)
    return len(found)


def restore(model: Any) -> None:
    """Undo `quicken`: fairseq2's own attention again, to compare with."""
    for module in _attentions(model):
        module.__dict__.pop("forward", None)


def _attentions(model: Any) -> list[Any]:
    from fairseq2.models.transformer import RelativePositionSDPA

    return [module for module in model.modules() if isinstance(module, RelativePositionSDPA)]


class _Quick:
    """Stands in for one module's `forward`."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._plain = module.forward

    def __call__(
        self, q: Any, q_layout: Any, k: Any, k_layout: Any, v: Any, bias_cache: Any, *, needs_weights: bool = False
    ) -> tuple[Any, Any]:
        """Attend: q, k, v are float (N, S, H, K); returns (N, S, H, K) and no weights."""
        import torch

        if needs_weights or torch.is_grad_enabled() or q_layout.packed or q.shape != k.shape or q.device.type != "cpu":
            plain: tuple[Any, Any] = self._plain(q, q_layout, k, k_layout, v, bias_cache, needs_weights=needs_weights)
            return plain
        from fairseq2.models.transformer.attention_bias import maybe_get_attention_bias_tensor

        bias = maybe_get_attention_bias_tensor(self._module.bias, q, q_layout, k_layout, bias_cache)
        attended = self._attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), bias)
        return attended.transpose(1, 2), None

    def _attend(self, q: Any, k: Any, v: Any, bias: Any) -> Any:
        """Attend by blocks of queries: (N, H, S, K) each, `bias` broadcasts to (N, H, S, S) or is None."""
        import torch

        length, out = q.size(2), torch.empty_like(v)
        positions = self._positions(k)
        keyed = q + self._module.u_bias[:, None]
        placed = (q + self._module.v_bias[:, None]) * q.size(-1) ** -0.5
        for start in range(0, length, BLOCK):
            stop = min(start + BLOCK, length)
            seen = positions[..., length - stop : 2 * length - 1 - start]
            scores = _shifted(placed[:, :, start:stop], seen)
            if bias is not None:
                scores += bias[..., start:stop, :] if bias.size(-2) > 1 else bias
            out[:, :, start:stop] = torch.nn.functional.scaled_dot_product_attention(
                keyed[:, :, start:stop], k, v, attn_mask=scores
            )
        return out

    def _positions(self, k: Any) -> Any:
        """The projected encodings of distances S - 1 to 1 - S: (H, K, 2 S - 1)."""
        encoded = self._module.r_proj(self._module.pos_encoding(k))
        return encoded.view(-1, k.size(1), k.size(3)).permute(1, 2, 0)


def _shifted(queries: Any, seen: Any) -> Any:
    """Scores of each query with the distances to all S keys.

    Args:
        queries: (N, H, m, K), scaled.
        seen: (H, K, S + m - 1), the distances from the last query to the first key up to the first query to the last.

    Returns:
        (N, H, m, S), a view: row i begins m - 1 - i positions later than the last row does.
    """
    import torch

    batch, heads, count, size = queries.shape
    width = seen.size(-1)
    flat = queries.transpose(0, 1).reshape(heads, batch * count, size)
    scores = torch.bmm(flat, seen)
    return scores.as_strided(
        (batch, heads, count, width - count + 1),
        (count * width, batch * count * width, width - 1, 1),
        count - 1,
    )
