# The one door. Needs Rust, gcc, Python 3 and apt; what else a target needs it fetches below the target folder.
#
#   make run      builds and runs Tributary with node_exporter beside it: http://127.0.0.1:9090
#   make cluster  the same as five roles in eight processes, with etcd and an S3 server, on loopback
#   make test     every test
#   make soak     the long forms: minutes of outage, every place of a crash three times, many seeds
#   make bench    the repository's own benchmarks
#   make golden   writes golden files anew; the difference is for review
#   make check    formatting, lints, architecture, docs
#   make audit    dependencies: bans, licences, sources
#   make image    the container image, from scratch

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run cluster test soak bench golden parts conformance check audit image

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
PARTS := $(TARGET)/parts
# Prometheus's own test data, kept outside of the repository.
CONFORMANCE := $(abspath ../shared/conformance)
# Our own scripts in Prometheus's test language.
SCRIPTS := $(wildcard shared/promql-engine/testdata)

help:
	@sed -n 's/^#   //p' $(firstword $(MAKEFILE_LIST))

# PROFILE=debug builds faster; DATA is where samples are kept.
run:
	TARGET="$(TARGET)" deploy/run.sh

cluster:
	TARGET="$(TARGET)" deploy/cluster.sh

# Everything is built once, in one set of features: programs, tests, and the programs that the tests start.
test: parts
	cargo build --workspace --lib --bins --tests
	PATH="$(PARTS)/venv/bin:$$PATH" cargo test --workspace --no-fail-fast
	# The stories once more, against a cluster. Those left out say by themselves what they start.
	PATH="$(PARTS)/venv/bin:$$PATH" TRIBUTARY_SHAPE=cluster cargo test --workspace --test stories -- \
		--test-threads=2 --skip cluster:: --skip diskless:: --skip disk_full:: --skip damaged_files:: --skip damaged_logs:: \
		--skip storage_url:: --skip containers:: --skip deploy:: --skip tree::
	cargo test -p promql-engine --features planted-faults --test planted_faults
	cargo test --workspace --features tsdb/planted-faults --test faults
	@$(MAKE) --no-print-directory conformance

soak: parts
	cargo build --workspace --lib --bins --tests
	PATH="$(PARTS)/venv/bin:$$PATH" TRIBUTARY_SOAK=true cargo test --workspace --test stories cluster::
	TRIBUTARY_SOAK=true cargo test --workspace --features tsdb/planted-faults --test faults nothing_acknowledged

bench: BENCHES := --bench eval --bench storage --bench rules --bench federate
bench: parts
	# With the program that is measured, in one set of features.
	cargo build --release --workspace --lib --bins $(BENCHES)
	cargo bench --workspace $(BENCHES)

golden:
	TRIBUTARY_GOLDEN=1 cargo test --workspace --lib -- the_defaults_are_these damaged_logs_come_to

parts:
	integration-tests/parts.sh "$(PARTS)" all

# Scripts in Prometheus's test language: our own, then Prometheus's. Last, so that a skip is seen.
conformance:
	@if [ -n "$(SCRIPTS)" ]; then "$(TARGET)/debug/promqltest" $(SCRIPTS); fi
	@if [ -d "$(CONFORMANCE)" ]; then \
		"$(TARGET)/debug/promqltest" "$(CONFORMANCE)/promql"; \
	else \
		echo "SKIPPED conformance ($(CONFORMANCE) is absent)"; \
		[ "$${CI:-}" != true ] || { echo "CI runs nothing without it" >&2; exit 1; }; \
	fi

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p promql-engine --all-targets --features planted-faults -- -D warnings
	cargo clippy --workspace --all-targets --features tsdb/planted-faults -- -D warnings
	cargo test --workspace --test tidy
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# cargo-deny is built once, below the target folder, where there is none.
audit: export PATH := $(TARGET)/tools/bin:$(PATH)
audit:
	cargo deny --version || cargo install --locked --root "$(TARGET)/tools" cargo-deny
	cargo deny check bans licenses sources

# With Docker where an engine runs, else by hand; PROFILE=debug builds faster.
image:
	TARGET="$(TARGET)" deploy/image.sh
