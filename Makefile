# isle's build. `make help` lists the targets.

GO       ?= go
PREFIX   ?= /usr/local
DESTDIR  ?=
FUZZTIME ?= 30s
BENCH    ?= quick

# Tools at pinned versions, built once into .cache.
GOLANGCI := v2.15.0

export CGO_ENABLED = 0
# The build is the same wherever the tree lies and whatever the caller sets.
export GOFLAGS     = -trimpath -buildvcs=false
export GOWORK      = off
LDFLAGS  := -s -w -buildid=
export GOARCH := $(shell $(GO) env GOARCH)
SOURCES   = $(shell find cmd internal go.mod go.sum -type f ! -name '*_test.go' ! -path 'internal/builtin/*/base.tar')
BUILTIN   = internal/builtin/data/$(GOARCH)/base.tar
BIN      ?= bin

.DEFAULT_GOAL := build

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

.PHONY: build
build: $(BIN)/isle $(BIN)/isled ## build bin/isle and bin/isled: static, reproducible

# A file as the linker leaves it starts more slowly than its copy: the linker
# writes through a mapping, page by page, and the page cache keeps it like that.
$(BIN)/isle: $(SOURCES) | need-go
	@mkdir -p $(BIN)
	$(GO) build -ldflags '$(LDFLAGS)' -o $@.linked ./cmd/isle
	@cp $@.linked $@.tmp && rm $@.linked && mv $@.tmp $@

$(BIN)/isled: $(SOURCES) $(BUILTIN) | need-go
	@mkdir -p $(BIN)
	$(GO) build -ldflags '$(LDFLAGS)' -o $@.linked ./cmd/isled
	@cp $@.linked $@.tmp && rm $@.linked && mv $@.tmp $@

# The built-in image, embedded in isled.
internal/builtin/data/%/base.tar: internal/builtin/build.sh internal/builtin/pack/main.go $(shell find internal/builtin/userland -type f) | need-go
	internal/builtin/build.sh $* .cache

.PHONY: need-go
need-go:
	@command -v $(GO) >/dev/null || { echo 'isle needs Go 1.26 or newer: https://go.dev/dl/ (Debian: apt-get install golang-go, from backports)' >&2; exit 1; }

.PHONY: setup
setup: ## install the Debian packages that demo and test need (as root; else print the line)
	@hack/setup

.PHONY: demo
demo: setup build ## build, then run real containers and show what the kernel sees
	@hack/demo $(BIN)

.PHONY: test
test: setup build vet lint unit e2e cross ## all tests: layout, lint, unit and kernel tests as root and as an ordinary user, end to end

.PHONY: check
check: vet lint tidy ## what needs no kernel: vet, lint, go.mod
	$(GO) test ./internal/layout

.PHONY: vet
vet: | need-go ## go vet
	$(GO) vet ./...
	cd internal/builtin/userland && $(GO) vet ./sh ./ps ./env ./id ./head

.PHONY: lint
lint: .cache/bin/golangci-lint-$(GOLANGCI) ## golangci-lint at its pinned version
	.cache/bin/golangci-lint-$(GOLANGCI) run ./...

.cache/bin/golangci-lint-$(GOLANGCI): | need-go
	@mkdir -p .cache/bin
	@echo 'building golangci-lint $(GOLANGCI), once (about two minutes)'
	GOBIN=$(CURDIR)/.cache/bin GOFLAGS= $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)
	@mv .cache/bin/golangci-lint $@

.PHONY: fmt
fmt: .cache/bin/golangci-lint-$(GOLANGCI) ## format the source
	.cache/bin/golangci-lint-$(GOLANGCI) fmt ./...

.PHONY: tidy
tidy: | need-go ## go.mod and go.sum are as go mod tidy leaves them
	$(GO) mod tidy -diff
	$(GO) mod verify

# What an ordinary user's lane is known to lack beyond the machine's own list.
USERLACKS = Root Source CgroupV1Memory CgroupV2Delegated

.PHONY: unit
unit: build ## unit and kernel tests, as this user; when that is root, as an ordinary user too
	hack/lane $(GO) test -count=1 -timeout 15m ./internal/... ./cmd/... ./bench/...
	@if [ "$$(id -u)" = 0 ]; then \
		echo "once more, as an ordinary user"; \
		if [ -n "$${ISLE_EXPECT_SKIPS+set}" ]; then export ISLE_EXPECT_SKIPS="$$ISLE_EXPECT_SKIPS $(USERLACKS)"; fi; \
		hack/lane $(GO) test -count=1 -timeout 15m -exec $(CURDIR)/hack/as-user $$($(GO) list ./internal/... | grep -v -e /layout -e /builtin); \
	fi

.PHONY: e2e
e2e: build ## the lesson and the bad-input table with the real binaries and a real registry
	hack/lane $(GO) test -count=1 -timeout 20m -v $$($(GO) list ./test/... | grep -v /test/load)

.PHONY: attacks
attacks: build ## known escapes against isle, races a minute each; ENGINE=podman: against another Docker-like command
	ISLE_ATTACK_ROUNDS=$${ISLE_ATTACK_ROUNDS:-10000} hack/lane $(GO) test -count=1 -timeout 60m -v ./test/attacks

.PHONY: test-vm
test-vm: | need-go ## lanes in Debian guests with systemd and cgroup v2 (LANE="rootless reboot", KERNEL=uml, 6.1 or 6.12; test/vm/README.md)
	@hack/setup vm
	test/vm/lane $(if $(KERNEL),-k $(KERNEL)) $(LANE)

.PHONY: scale
scale: | need-go ## 200 networks, 500 containers on one (as root)
	ISLE_TEST_SCALE=1 $(GO) test -count=1 -v -run '^TestScale$$' -timeout 10m ./internal/network

.PHONY: load
load: build ## 50 processes on one store for ten minutes, as root and as an ordinary user
	ISLE_LOAD_PROCESSES=$${ISLE_LOAD_PROCESSES:-50} ISLE_LOAD_SECONDS=$${ISLE_LOAD_SECONDS:-600} hack/lane $(GO) test -count=1 -timeout 60m -v ./test/load

.PHONY: crash
crash: build ## kill isle at every system call that changes something (ISLE_CRASH_EVERY=1: every one)
	ISLE_CRASH_EVERY=$${ISLE_CRASH_EVERY:-1} hack/lane $(GO) test -count=1 -timeout 120m -v ./test/crash

.PHONY: conformance
conformance: build ## the OCI runtime against Debian's runc, every variation; other projects' suites where SUITES names their directory
	CONFORMANCE=all hack/lane $(GO) test -count=1 -timeout 20m -v ./test/conformance
	@if [ -n "$(SUITES)" ]; then test/conformance/suites.sh $(BIN)/isle $(SUITES); fi

.PHONY: cross
cross: | need-go ## vet and build for arm64 (in .cache/arm64)
	GOARCH=arm64 $(GO) vet ./internal/... ./cmd/...
	$(MAKE) --no-print-directory GOARCH=arm64 BIN=.cache/arm64 build

.PHONY: reproducible
reproducible: build ## build twice from different directories and compare
	hack/reproducible $(BIN)

.PHONY: fuzz
fuzz: | need-go ## every fuzz target for FUZZTIME each
	@for f in $$(grep -rl --include='*_test.go' '^func Fuzz' internal); do \
		for n in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$f); do \
			echo "== $$n in $$(dirname $$f)"; \
			$(GO) test -run '^$$' -fuzz "^$$n\$$" -fuzztime $(FUZZTIME) ./$$(dirname $$f) || exit 1; \
		done; \
	done

.PHONY: bench
bench: build ## speed and size, side by side with the peers installed here (BENCH=quick or full, ONLY=start,pull...)
	$(GO) run ./bench -size $(BENCH) $(if $(ONLY),-only $(ONLY)) -bin $(BIN)

.PHONY: install
install: build ## install into $(PREFIX)/bin, manual pages into $(PREFIX)/share/man
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 0644 docs/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 0755 $(BIN)/isle $(BIN)/isled $(DESTDIR)$(PREFIX)/bin/

.PHONY: clean
clean: ## remove what was built, but not the pinned tools
	rm -rf $(BIN) dist .cache/builtin-* .cache/arm64 internal/builtin/data/*/base.tar
