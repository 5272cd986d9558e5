"""`labeltrace::attend` as a Triton kernel: online softmax, with the mean over heads inside."""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def attend_kernel(
    query,
    key,
    labels,
    mask,
    result,
    scale,
    inner_batch,
    heads,
    heads_a_key,
    queries,
    keys,
    sources,
    row_blocks,
    source_blocks,
    query_outer,
    query_inner,
    query_head,
    query_row,
    query_feature,
    key_outer,
    key_inner,
    key_head,
    key_row,
    key_feature,
    labels_outer,
    labels_inner,
    labels_row,
    labels_source,
    mask_outer,
    mask_inner,
    mask_head,
    mask_row,
    mask_column,
    HEAD_SIZE: tl.constexpr,
    MASK: tl.constexpr,
    CAUSAL: tl.constexpr,
    IN_FLOAT32: tl.constexpr,
    FEW_SOURCES: tl.constexpr,
    LABEL_PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FEATURES: tl.constexpr,
    SOURCES: tl.constexpr,
):
    """One program: ROWS queries of one sample, all heads and keys, SOURCES columns of labels.

    Each head has its own softmax denominator, so heads are computed one after the other, each with
    an online softmax over blocks of COLUMNS keys (Milakov and Gimelshein, arXiv 1805.02867), and
    only their normalized labels are added. Arguments such as `query_row` are strides, in elements.
    MASK is "none", "boolean" (bytes) or "additive". FEW_SOURCES, if not zero, is the number of
    sources: their products are sums, which are cheaper than a matrix product padded to 16 columns.
    """
    program = tl.program_id(0)
    row_block = program % row_blocks
    source_block = program // row_blocks % source_blocks
    sample = program // row_blocks // source_blocks
    # Offsets of whole blocks are 64 bits wide: tensors may be larger than 2^31.
    wide = tl.full((), 0, tl.int64)
    inner = wide + sample % inner_batch
    outer = wide + sample // inner_batch
    first_row = wide + row_block * ROWS
    first_source = source_block * SOURCES

    rows = tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    features = tl.arange(0, FEATURES)
    own_sources = tl.arange(0, SOURCES)
    row_there = first_row + rows < queries
    feature_there = features < HEAD_SIZE
    source_there = first_source + own_sources < sources
    query_places = rows[:, None] * query_row + features[None, :] * query_feature
    key_places = columns[None, :] * key_row + features[:, None] * key_feature
    mask_places = rows[:, None] * mask_row + columns[None, :] * mask_column
    label_places = columns[:, None] * labels_row + own_sources[None, :] * labels_source

    query += outer * query_outer + inner * query_inner + first_row * query_row
    key += outer * key_outer + inner * key_inner
    labels += outer * labels_outer + inner * labels_inner + first_source * labels_source
    if MASK != "none":
        mask += outer * mask_outer + inner * mask_inner + first_row * mask_row

    last_column = keys
    if CAUSAL:
        last_column = tl.minimum(keys, row_block * ROWS + ROWS)

    total = tl.zeros((ROWS, SOURCES), tl.float32)
    times_lost = tl.zeros((ROWS,), tl.float32)
    for head in range(heads):
        one_query = tl.load(
            query + (wide + head) * query_head + query_places,
            mask=row_there[:, None] & feature_there[None, :],
            other=0.0,
        )
        if IN_FLOAT32:
            one_query = one_query.to(tl.float32) * scale
        key_of_head = key + (wide + head // heads_a_key) * key_head
        highest = tl.full((ROWS,), float("-inf"), tl.float32)
        whole = tl.zeros((ROWS,), tl.float32)
        mixed = tl.zeros((ROWS, SOURCES), tl.float32)
        for start in range(0, last_column, COLUMNS):
            first_column = wide + start
            column_there = start + columns < keys
            one_key = tl.load(
                key_of_head + first_column * key_row + key_places,
                mask=column_there[None, :] & feature_there[:, None],
                other=0.0,
            )
            if IN_FLOAT32:
                scores = tl.dot(one_query, one_key.to(tl.float32), input_precision="ieee")
                scores *= LOG2_E
            else:
                scores = tl.dot(one_query, one_key) * (scale * LOG2_E)
            if CAUSAL:
                seen = (first_row + rows)[:, None] >= (first_column + columns)[None, :]
                scores = tl.where(seen, scores, float("-inf"))
            if MASK != "none":
                hidden = tl.load(
                    mask + (wide + head) * mask_head + first_column * mask_column + mask_places,
                    mask=row_there[:, None] & column_there[None, :],
                    other=0,
                )
                if MASK == "boolean":
                    scores = tl.where(hidden != 0, scores, float("-inf"))
                else:
                    scores += hidden.to(tl.float32) * LOG2_E
            scores = tl.where(column_there[None, :], scores, float("-inf"))

            highest_now = tl.maximum(highest, tl.max(scores, 1))
            # While all keys so far are masked the highest score is -inf, and -inf - -inf is NaN.
            shift = tl.where(highest_now == float("-inf"), 0.0, highest_now)
            weights = tl.exp2(scores - shift[:, None])
            faded = tl.exp2(highest - shift)
            highest = highest_now
            whole = whole * faded + tl.sum(weights, 1)
            mixed *= faded[:, None]
            labels_here = labels + first_column * labels_row
            if FEW_SOURCES:
                for source in tl.static_range(FEW_SOURCES):
                    label = tl.load(
                        labels_here + columns * labels_row + source * labels_source,
                        mask=column_there,
                        other=0.0,
                    )
                    share = tl.sum(weights * label[None, :], 1)
                    mixed += tl.where((own_sources == source)[None, :], share[:, None], 0.0)
            else:
                label = tl.load(
                    labels_here + label_places,
                    mask=column_there[:, None] & source_there[None, :],
                    other=0.0,
                )
                mixed = tl.dot(weights, label, mixed, input_precision=LABEL_PRECISION)

        # A row that is masked entirely sums to zero; one that is not finite, to NaN.
        lost = (whole > 0) == 0
        total += tl.where(lost[:, None], 0.0, mixed / whole[:, None])
        times_lost += tl.where(lost, 1.0, 0.0)

    if tl.max(times_lost, 0) > 0:  # lost rows mix all keys equally
        equal = tl.zeros((SOURCES,), tl.float32)
        for start in range(0, keys, COLUMNS):
            label = tl.load(
                labels + (wide + start) * labels_row + label_places,
                mask=(start + columns < keys)[:, None] & source_there[None, :],
                other=0.0,
            )
            equal += tl.sum(label, 0)
        total += times_lost[:, None] * (equal / keys)[None, :]

    result += ((wide + sample) * queries + first_row) * sources + first_source
    tl.store(
        result + rows[:, None] * sources + own_sources[None, :],
        total / heads,
        mask=row_there[:, None] & source_there[None, :],
    )
