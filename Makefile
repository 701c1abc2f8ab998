# The commands of this project. `make help` lists them.

.DEFAULT_GOAL := help
.PHONY: help check test test-system demo sandbox bench fuzz deb audit release-check fmt

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

check: ## format and lints: what CI runs before the tests
	@bash -c '. scripts/setup test && \
		cargo fmt --all --check && \
		cargo clippy --workspace --lib --bins --tests --benches --examples --test system --locked -- -D warnings && \
		cargo clippy -p bastiond-tunnel --lib --tests --features virtual-clock --locked -- -D warnings && \
		RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet && \
		scripts/check-shell && scripts/check-units'

test: ## everything that can be proven here; installs what is missing
	@scripts/test

test-system: ## the package on a booted Debian 12 (needs root): first boot, restart and upgrade under load, reboot, removal; then in virtual machines with Debian's kernels
	@scripts/test-system
	@scripts/test-vm

demo: ## the whole story in under 20 s; installs what is missing
	@scripts/demo

sandbox: ## the demo's world, left open with a shell
	@bash -c '. scripts/setup demo && cargo build --profile quick --quiet --locked -p bastiond -p sandbox --bins && \
		target/quick/sandbox shell --bastiond target/quick/bastiond'

bench: ## side by side with the alternatives; CASE=gateway, CASE=daemon or CASE=tunnel runs one part
	@bash -c '. scripts/setup bench && scripts/install-bench-peers "$(CASE)" && cargo build --release --quiet --locked -p bastiond -p bastiond-tunnel -p sandbox --bins && \
		cargo bench --quiet --bench bench -- $(CASE)'

fuzz: ## every parser that faces the network or the user, a minute each; installs cargo-fuzz if it is missing
	@scripts/fuzz

deb: ## the Debian package, target/deb/bastiond_*.deb; ARCH=arm64 cross-builds
	@scripts/deb $(ARCH)

audit: ## licences and known weaknesses of the dependencies; builds cargo-deny and cargo-audit once
	@scripts/audit

release-check: ## what a release has to pass beside CI: oldest compiler, both packages, equal bytes, audit
	@scripts/check-rust-version
	@scripts/check-deb
	@scripts/deb arm64
	@scripts/audit

fmt: ## formats the code
	@cargo fmt --all
