# gild: see README.md. `make demo` builds and boots an image; `make test` runs every test.

GO ?= go

.PHONY: all demo plugins test check bench fuzz generate host-tools clean FORCE

all: bin/gild

bin/gild: FORCE
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags '-s -w' -o bin/gild ./cmd/gild

FORCE:

## demo: install what the host lacks, build gild, build and boot pipelines/web.yaml
demo: host-tools bin/gild
	bin/gild build pipelines/web.yaml

host-tools:
	sh .ci/host-tools

# goss is built from its own release; a module of its own keeps what it needs out of gild's.
GOSS := plugins/example/goss
PLUGIN_BUILD = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w'

## plugins: build the sample plugins that are compiled into bin/plugins, a folder each
plugins:
	@mkdir -p bin/plugins/ansible bin/plugins/goss bin/plugins/oci-push
	$(PLUGIN_BUILD) -o bin/plugins/ansible/gild-plugin-ansible ./plugins/example/ansible
	$(PLUGIN_BUILD) -o bin/plugins/oci-push/gild-plugin-oci-push ./plugins/example/oci-push
	cd $(GOSS) && $(PLUGIN_BUILD) -o $(CURDIR)/bin/plugins/goss/gild-plugin-goss .
	cd $(GOSS) && $(PLUGIN_BUILD) -o $(CURDIR)/bin/plugins/goss/goss-$$($(GO) env GOARCH) github.com/goss-org/goss/cmd/goss
	@for p in ansible goss oci-push; do cp plugins/example/$$p/plugin.yaml bin/plugins/$$p/; done

# Some tests make device nodes, users and mounts of their own, so they run as root.
ifneq ($(shell id -u),0)
AS_ROOT := -exec 'sudo env "PATH=$(PATH)" HOME=/root'
endif

## test: every test, with the race detector
test:
	sh .ci/host-tools test
	$(GO) test -race -timeout 40m $(AS_ROOT) ./...
	cd $(GOSS) && $(GO) test -race -timeout 10m $(AS_ROOT) ./...

## check: format, vet, staticcheck, generated files, the plugin protocol against the last release
check:
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags crashtest ./...
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff
	cd $(GOSS) && $(GO) vet ./... && $(GO) mod tidy -diff
	$(GO) run ./cmd/gild schema | cmp - schemas/gild.schema.json
	cd plugins/proto/pluginv1 && $(GO) run ../protogen -check

## generate: bring generated files up to date
generate:
	$(GO) generate ./plugins/proto/pluginv1
	$(GO) run ./cmd/gild schema > schemas/gild.schema.json.new
	mv schemas/gild.schema.json.new schemas/gild.schema.json

## bench: every benchmark, with memory
bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

FUZZTIME ?= 2m
## fuzz: each fuzz target for FUZZTIME
fuzz:
	@set -e; for dir in $$($(GO) list -f '{{.Dir}}' ./... && cd $(GOSS) && $(GO) list -f '{{.Dir}}' ./...); do \
	  for target in $$(grep -ho 'func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go 2>/dev/null | cut -c6-); do \
	    echo "== $$dir $$target"; (cd $$dir && $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x .); \
	  done; \
	done

clean:
	rm -rf bin
