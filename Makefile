# The commands of this project. `make help` lists them.

.DEFAULT_GOAL := help
.PHONY: help check test test-system test-long soak demo sandbox bench fuzz deb audit release-check fmt

help: ## print this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

check: ## check the format and the lints; CI runs this before the tests
	@bash -c '. scripts/setup test && \
		cargo fmt --all --check && \
		cargo clippy --workspace --lib --bins --tests --benches --examples --test system --locked -- -D warnings && \
		cargo clippy -p bastiond-tunnel --lib --tests --features virtual-clock --locked -- -D warnings && \
		RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet && \
		scripts/check-fastpath-object && scripts/check-shell && scripts/check-units && scripts/check-terraform && scripts/check-docs'

test: ## run all tests that need no root; installs what is missing
	@scripts/test

test-system: ## test the package on booted systems (needs root): first boot on Debian 12, 13 and Ubuntu 24.04, restart and upgrade under load, reboot, removal
	@scripts/test-system
	@scripts/test-docker

test-long: ## tests that take long: Debian's kernels in virtual machines (needs root), each fuzz target for SECONDS_EACH (300) seconds, reproducible packages, attacks of a minute each, connections of more than 4 GB and what passes a gateway with the fast path in BPF (needs root), the soak
	@scripts/test-vm
	@SECONDS_EACH=$${SECONDS_EACH:-300} scripts/fuzz
	@scripts/check-deb
	@bash -c '. scripts/setup test && cargo test --quiet --locked --test netns -- --ignored for_a_minute'
	@bash -c '. scripts/setup test && BASTIOND_REQUIRE_BPF=1 cargo test --quiet --locked --test netns -- --ignored of_more_than_4_gb'
	@bash -c '. scripts/setup test && BASTIOND_TEST_FASTPATH=bpf BASTIOND_REQUIRE_BPF=1 cargo test --workspace --locked --test netns'
	@scripts/soak

soak: ## random faults in the sandbox beside a private host's traffic; BASTIOND_SOAK_SECONDS bounds it, BASTIOND_SOAK_SEED repeats it
	@scripts/soak

demo: ## show what bastiond does, in under 20 s; installs what is missing
	@scripts/demo

sandbox: ## start the demo's network and a shell in it
	@bash -c '. scripts/setup demo && build_quick && \
		target/quick/sandbox shell --bastiond target/quick/bastiond'

bench: ## compare with the alternatives; CASE=gateway, CASE=daemon or CASE=tunnel runs one part
	@bash -c '. scripts/setup bench && scripts/install-bench-peers "$(CASE)" && cargo build --release --quiet --locked -p bastiond -p bastiond-tunnel -p sandbox --bins && \
		cargo bench --quiet --bench bench -- $(CASE)'

fuzz: ## fuzz every parser of outside input, a minute each; installs cargo-fuzz if it is missing
	@scripts/fuzz

deb: ## build the Debian package, target/deb/bastiond_*.deb; ARCH=arm64 cross-builds
	@scripts/deb $(ARCH)

audit: ## check the licences and known vulnerabilities of the dependencies; builds cargo-deny and cargo-audit once
	@scripts/audit

release-check: ## check a release beyond CI: oldest compiler, both packages, reproducibility, audit
	@scripts/check-rust-version
	@scripts/check-deb
	@scripts/deb arm64
	@scripts/audit

fmt: ## format the code
	@cargo fmt --all
