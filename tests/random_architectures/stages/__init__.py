"""How to read a stage.

    @stage(on="tokens", promise=Promise.EQUAL)
    def cosine_attention(draw: DrawFn, state: State) -> Stage:

This function draws stages. It is chosen for an activation of its kind: `on` is "map" for
(B, C, rows, columns), "tokens" for (B, N, C), or "any". It reads the sizes of that activation from
`state`, draws numbers and spellings with `draw`, and returns a `Stage`: the module, the state that
the module leaves, and, only where what was drawn calls for it, a smaller promise than the one in
the decorator.

The code that runs in the model is a function inside: `def forward(self, x)`, or one of several
lambdas where a model may be spelled in several ways. `self` is the module and holds layers and
parameters; numbers are closed over. A failing example prints this function with its numbers
(`tests.helpers.code_module`), ready to be pasted into a test.

A new stage needs no more than its decorated function in one of these files, or in a new one. See
`tests.random_architectures.state` for what the promises mean.
"""
