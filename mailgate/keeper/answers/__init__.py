"""
What processes that serve clients answer the keeper: one module a subject. Each puts its functions into
L{mailgate.keeper.view.ANSWERERS}.
"""
