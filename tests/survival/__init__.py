"""``make survival``: what lives on when one end moves, for ntmd and its peers, on a real kernel.

Each repetition is a lab of its own: two nodes behind NATs, a server in public, every line with a
delay, and unmodified programs that all run at once (:mod:`tests.survival.programs`). Something
happens (:mod:`tests.survival.scenarios`), and what each program noticed becomes one line of
``out/survival.jsonl``. :mod:`tests.survival.page` makes ``docs/survival.md`` of those lines.
"""
