# The short names. Each target installs what it needs; see CONTRIBUTING.md.
PY := .venv/bin/python
OUT := out

.PHONY: help build test-setup check unit sim e2e test demo bench survival figures mutants doc clean

help:
	@echo "make demo      two nodes behind NATs, real programs, one moves: what survives"
	@echo "make test      everything that proves the project: lint, types, unit, sim, e2e"
	@echo "make build     .venv/bin/{ntmd,ntm-server}"
	@echo "make check unit sim e2e mutants    parts of make test"
	@echo "make bench     side by side with wireguard-go, in one run"
	@echo "make survival  what lives on when one end moves: docs/survival.md; PEERS=1: the peers, too"
	@echo "make figures   bench and survival"

build:
	@.ci/setup build

test-setup:
	@.ci/setup test

check: test-setup
	$(PY) -m ruff check --no-cache .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-logo
	$(PY) -m pytest -q -p no:cacheprovider tests/meta

unit: test-setup
	$(PY) -m pytest -q -n 3 --dist worksteal tests/unit tests/planes tests/fuzz tests/survival

sim: test-setup
	$(PY) -m pytest -q -n 2 tests/sim tests/model

e2e: test-setup
	$(PY) -m pytest -q -n 3 --dist load --maxschedchunk 1 -m e2e tests/e2e

test: check unit sim e2e mutants

mutants: test-setup
	$(PY) -m tests.meta.mutants

demo: test-setup
	$(PY) -m tests.e2e.demo

bench: test-setup
	$(PY) -m tests.bench --long --out $(OUT)/bench.json

# Resumes: what stands in out/survival.jsonl is not run again. ONLY=hard,soft writes no page.
survival: test-setup
	$(PY) -m tests.survival --repeat $(or $(REPEAT),10) $(if $(ONLY),--only $(ONLY),--write)
	$(if $(PEERS),.ci/setup peers && $(PY) -m tests.survival --products peers --repeat 3 \
		$(if $(ONLY),--only $(ONLY),--write))
	$(if $(ONLY),,$(PY) -m tests.survival.grid)

figures: bench survival

clean:
	rm -rf .venv build out *.egg-info
