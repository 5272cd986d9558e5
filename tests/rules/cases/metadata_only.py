"""What reads only an activation's shape, type or device carries no label."""

from tests.rules.cases.case import RuleCase
from tests.rules.cases.expected_labels import follows, moves, no_label

ATEN = "torch.ops.aten."
FRESH = {
    "aten.empty_like": "empty_like(x).zero_()",
    "aten.full_like": "full_like(x, 2.0)",
    "aten.new_empty": "new_empty(x, [x.shape[0], 2]).zero_()",
    "aten.new_full": "new_full(x, [x.shape[0], 2], 3.0)",
    "aten.new_ones": "new_ones(x, [x.shape[0], 2])",
    "aten.new_zeros": "new_zeros(x, [x.shape[0], 2])",
    "aten.ones_like": "ones_like(x)",
    "aten.rand_like": "rand_like(x)",
    "aten.randint_like": "randint_like(x, 5)",
    "aten.randn_like": "randn_like(x)",
    "aten.zeros_like": "zeros_like(x)",
}

CASES = (
    *(RuleCase(name, ATEN + code, no_label) for name, code in FRESH.items()),
    # Where they join the positions of the image they carry the prior.
    RuleCase("aten.full_like", f"torch.cat([x, {ATEN}full_like(x[:, :, :2], -1.0)], 2)", moves),
    RuleCase(
        "aten.zeros_like", f"torch.cat([{ATEN}zeros_like(x[:, :, :2]) - 1.0, x.flip(2)], 2)", moves
    ),
    RuleCase(
        "aten.new_full", f"torch.cat([x, {ATEN}new_full(x, [x.shape[0], 3, 5, 2], -1.0)], 3)", moves
    ),
    RuleCase("aten.ones_like", f"torch.cat([{ATEN}ones_like(x).neg(), x], 2)", moves),
    # What is merely multiplied or added changes nothing.
    RuleCase("aten.rand_like", f"x * {ATEN}rand_like(x)", follows("x")),
    RuleCase("aten.randn_like", f"x + {ATEN}randn_like(x)", follows("x")),
    RuleCase(
        "aten._assert_tensor_metadata",
        "(torch.ops.aten._assert_tensor_metadata(x, device=x.device), x)[1]",
        follows("x"),
    ),
    RuleCase("aten._assert_tensor_metadata", "x.double()", follows("x")),
    RuleCase("aten.sym_size", "x.new_zeros(x.shape[0], 2)", no_label),
    RuleCase("aten.sym_size", "x * x.shape[0]", follows("x")),
    RuleCase("aten.sym_numel", "x * x.numel()", follows("x")),
)

UNREACHABLE = {
    "aten._local_scalar_dense": "records leave numbers out",
    "aten.is_nonzero": "records leave numbers out",
    "aten.item": "records leave numbers out",
    "aten.sym_stride": "a capture writes strides as products of sizes",
    "aten.sym_storage_offset": "a capture writes offsets as products of sizes",
}
