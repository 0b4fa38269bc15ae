# What one does here. `make` alone says it.
#
# Everything is built into $(OUT); nothing is installed on the machine but, by root and where missing, the packages that
# tests/harness/setup names. The stack runs in namespaces of its own (tests/harness/enter) and leaves nothing behind.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

OUT := $(abspath $(or $(CARGO_TARGET_DIR),target))
CARGO ?= cargo
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')

# What a binary answers to --version and writes into its records.
export BUILD_ID := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
# Where the harness finds what was built. No binary of Writ reads an environment variable.
export HARNESS_BIN := $(OUT)/stack
export MAKECMDGOALS

# agent-exec and inspect run on targets: static, in a profile of their own, built by themselves so that no other crate
# chooses features for them. agent-exec has musl where it is installed, else glibc's static start files.
MUSL := $(subst -gnu,-musl,$(HOST))
ifneq ($(wildcard $(shell rustc --print sysroot 2>/dev/null)/lib/rustlib/$(MUSL)),)
AGENT_TARGET := $(MUSL)
AGENT_FLAGS :=
else
AGENT_TARGET := $(HOST)
AGENT_FLAGS := -Ctarget-feature=+crt-static
endif
AGENT_OUT := $(OUT)/$(AGENT_TARGET)/agent

# inspect starts without any C library (docs/adr/0009), so it is built for this host's target, which is always installed.
INSPECT_FLAGS := --cfg no_c_library --cfg sha2_backend="soft" --cfg sha2_backend_soft="compact" -Crelocation-model=static
INSPECT_OUT := $(OUT)/$(HOST)/agent

# How everything else is built: as it is debugged, or as it is shipped.
PROFILE := dev
BUILT := $(OUT)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))

ENTER := tests/harness/enter
IN_THE_WORLD := -p writ-e2e -p writ-security

.PHONY: help
help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-24s %s\n", $$1, $$2 }'

.PHONY: demo
demo: setup build ## one task from an MCP client to a target and into the evidence (ARGS=--json: the steps as data)
	@$(ENTER) $(HARNESS_BIN)/harness demo $(ARGS)

.PHONY: up
up: setup build ## the same stack, kept running for your own MCP client until Ctrl-C
	@$(ENTER) $(HARNESS_BIN)/harness up $(OUT)/up.sock

.PHONY: test
test: setup-test build ## every test; installs what is missing when root
	$(CARGO) test --workspace --exclude writ-e2e --exclude writ-security
	$(CARGO) test --no-run $(IN_THE_WORLD)
	$(ENTER) $(CARGO) test --offline $(IN_THE_WORLD) -- --show-output

# As root: the tests start programs that root owns, which is nobody in an ordinary user's namespace.
.PHONY: mutants
mutants: ## changes each line of paths, child, order and their kin, and looks for one that no test notices (.cargo/mutants.toml)
	@[ "$$(id -u)" = 0 ] || { echo 'mutants: root only'; exit 2; }
	@command -v cargo-mutants >/dev/null || $(CARGO) install --quiet --locked --root $(OUT)/tools cargo-mutants
	@mkdir -p $(OUT)/mutants
	CARGO_TARGET_DIR=$(OUT)/mutants/target TMPDIR=$(OUT)/mutants PATH="$(OUT)/tools/bin:$$PATH" \
	    $(CARGO) mutants --output $(OUT)/mutants --minimum-test-timeout 12

.PHONY: sweep
sweep: setup-test build ## whole, what `make test` does with a stride or a part of: many minutes
	$(CARGO) test --no-run $(IN_THE_WORLD)
	$(ENTER) $(CARGO) test --offline $(IN_THE_WORLD) -- --ignored --nocapture

# What is timed is what is shipped: release builds, laid out beside those that tests use. The runner is one too, because a
# client's half of a sample must not be slower than the relay's. The walls are measured by agent-exec's own crate in its own
# profile, because nothing else can take one away.
BENCH_STACK := $(OUT)/stack-release

.PHONY: bench
bench: setup-bench ## figures against their goals, into target/bench/results.jsonl (BENCH=executor: that one)
	@$(MAKE) --no-print-directory build PROFILE=release HARNESS_BIN=$(BENCH_STACK)
	@$(CARGO) build --quiet --release -p writ-bench
	@tests/bench/peers/install $(OUT)/peers
	@walls=$$(RUSTFLAGS='$(AGENT_FLAGS)' $(CARGO) test --quiet --profile agent --target $(AGENT_TARGET) -p agent-exec --lib \
	    --no-run --message-format json-render-diagnostics | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p') && \
	    install -m 755 "$$walls" $(BENCH_STACK)/walls-bench
	@HARNESS_BIN=$(BENCH_STACK) $(ENTER) $(OUT)/release/writ-bench $(OUT)/bench $(BENCH)

.PHONY: lint
lint: ## fmt, clippy and rustdoc, warnings refused
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTFLAGS='$(INSPECT_FLAGS)' $(CARGO) clippy --profile agent --target $(HOST) -p writ-inspect -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --quiet

.PHONY: build
build: agent target-package ## all binaries, laid out for the harness below target/stack
	@$(CARGO) build --quiet --profile $(PROFILE) -p writ-relay -p writ-ca -p writ-audit-cli -p writ-harness
	@mkdir -p $(HARNESS_BIN)
	@for program in writ-relay writ-ca writ-audit harness; do \
	    cmp -s $(BUILT)/$$program $(HARNESS_BIN)/$$program || install -m 755 $(BUILT)/$$program $(HARNESS_BIN)/$$program; \
	done

.PHONY: agent
agent: ## agent-exec and inspect: static, release
	@RUSTFLAGS='$(AGENT_FLAGS)' $(CARGO) build --quiet --profile agent --target $(AGENT_TARGET) -p agent-exec
	@RUSTFLAGS='$(INSPECT_FLAGS)' $(CARGO) build --quiet --profile agent --target $(HOST) -p writ-inspect

.PHONY: target-package
target-package: agent ## the folder to copy to a host that becomes a target: see deploy/target
	@$(CARGO) build --quiet --profile $(PROFILE) -p writ-target
	@rm -rf $(HARNESS_BIN)/target/actions.d $(HARNESS_BIN)/target/supervisors $(HARNESS_BIN)/target/databases
	@mkdir -p $(HARNESS_BIN)/target/actions.d $(HARNESS_BIN)/target/supervisors/systemd $(HARNESS_BIN)/target/supervisors/runit
	@install -m 755 $(AGENT_OUT)/agent-exec $(INSPECT_OUT)/inspect $(BUILT)/writ-target deploy/target/install $(HARNESS_BIN)/target/
	@install -m 644 sshd/50-writ.conf sshd/49-writ-hostcert.conf deploy/target/target.toml.example \
	    deploy/target/approvers.example $(HARNESS_BIN)/target/
	@install -m 644 proto/catalogue/actions.d/*.toml $(HARNESS_BIN)/target/actions.d/
	@for supervisor in systemd runit; do \
	    install -m 644 proto/catalogue/supervisors/$$supervisor/*.toml $(HARNESS_BIN)/target/supervisors/$$supervisor/; \
	done
	@for database in postgresql sqlite; do \
	    mkdir -p $(HARNESS_BIN)/target/databases/$$database; \
	    install -m 644 proto/catalogue/databases/$$database/* $(HARNESS_BIN)/target/databases/$$database/; \
	done

.PHONY: setup
setup:
	@tests/harness/setup

.PHONY: setup-test
setup-test:
	@tests/harness/setup test
	@tests/e2e/mcp-client/install $(OUT)/mcp-client

.PHONY: setup-bench
setup-bench:
	@tests/harness/setup bench

.PHONY: clean
clean: ## removes what was built
	$(CARGO) clean
