package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/gildhq/gild/plugins/sdk"
)

// destination is a tag in a repository of a registry, and how to speak to it.
type destination struct {
	ref   registry.Reference
	plain bool
}

// parseDestination reads "registry/repository:tag". A nil plain means HTTP without TLS to
// this host and TLS to all others.
func parseDestination(text string, plain *bool) (destination, error) {
	ref, err := registry.ParseReference(text)
	if err != nil {
		return destination{}, fmt.Errorf("reference %q: %w; one looks like registry.example.com/images/web:1.4.0", text, err)
	}
	if ref.Reference == "" || ref.ValidateReferenceAsTag() != nil {
		return destination{}, fmt.Errorf("reference %q has no tag; end it with one, such as :1.4.0", text)
	}
	d := destination{ref: ref, plain: loopback(ref.Host())}
	if plain != nil {
		d.plain = *plain
	}
	return d, nil
}

// String is the reference as users write it.
func (d destination) String() string { return d.ref.String() }

// loopback reports whether a registry's host, with or without port, is this host.
func loopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// uploadKind is the kind of the resource that a tag is while it is being pushed.
const uploadKind = "upload"

// upload finds a tag again: only while it has this digest is it the one that was pushed.
type upload struct {
	to     destination
	digest digest.Digest
}

// String is the upload as the id of a resource: "https://registry/repository:tag@sha256:...".
func (u upload) String() string {
	scheme := "https"
	if u.to.plain {
		scheme = "http"
	}
	return scheme + "://" + u.to.String() + "@" + u.digest.String()
}

func parseUpload(id string) (upload, error) {
	scheme, rest, _ := strings.Cut(id, "://")
	reference, sum, _ := strings.Cut(rest, "@")
	plain := scheme == "http"
	to, err := parseDestination(reference, &plain)
	if err != nil {
		return upload{}, err
	}
	u := upload{to, digest.Digest(sum)}
	if err := u.digest.Validate(); err != nil || u.String() != id {
		return upload{}, fmt.Errorf("%q is no upload", id)
	}
	return u, nil
}

// credential takes who is asking from the step's env: a name and a password, a token, or
// nothing for a registry that lets everybody push.
func credential(env map[string]string) (auth.Credential, error) {
	name, password, token := env["USERNAME"], env["PASSWORD"], env["TOKEN"]
	switch {
	case token != "" && (name != "" || password != ""):
		return auth.Credential{}, errors.New("env has a TOKEN and also a USERNAME or PASSWORD; give one of the two")
	case (name == "") != (password == ""):
		return auth.Credential{}, errors.New("env has only one of USERNAME and PASSWORD; give both")
	}
	return auth.Credential{Username: name, Password: password, AccessToken: token}, nil
}

// validate looks at what the schema can't: the reference.
func validate(_ context.Context, c Config) ([]sdk.Problem, error) {
	to, err := parseDestination(c.Reference, c.PlainHTTP)
	if err != nil {
		text, hint, _ := strings.Cut(err.Error(), "; ")
		return []sdk.Problem{{Pointer: "/reference", Message: text, Hint: hint}}, nil
	}
	if to.plain && !loopback(to.ref.Host()) {
		return []sdk.Problem{{
			Pointer: "/plain-http", Warning: true,
			Message: fmt.Sprintf("credentials and image go to %s unencrypted", to.ref.Host()),
			Hint:    "remove plain-http unless the network is trusted",
		}}, nil
	}
	return nil, nil
}
