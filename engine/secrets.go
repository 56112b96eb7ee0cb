package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gildhq/gild/engine/spec"
)

// secretTimeout bounds a command that prints a secret.
const secretTimeout = 30 * time.Second

// maxSecret is the largest secret, in bytes.
const maxSecret = 64 << 10

// secrets reads each secret once and keeps it in memory only.
type secrets struct {
	mu   sync.Mutex
	read map[string]string // by all that says where it comes from
}

func newSecrets() *secrets { return &secrets{read: map[string]string{}} }

// value returns a secret of a pipeline. Relative paths start at dir.
func (s *secrets) value(ctx context.Context, p *spec.Pipeline, name, dir string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ref, ok := p.Secrets[name]
	if !ok {
		return "", fmt.Errorf("no secret %q is declared", name)
	}
	id := ref.Source + "\x00" + dir + "\x00" + ref.Ref + "\x00" + strings.Join(ref.Argv, "\x00")
	if v, ok := s.read[id]; ok {
		return v, nil
	}
	v, err := readSecret(ctx, ref, dir)
	if err != nil {
		return "", err
	}
	if v == "" {
		return "", errors.New("it is empty")
	}
	if len(v) > maxSecret {
		return "", fmt.Errorf("it has %d bytes, and at most %d are allowed", len(v), maxSecret)
	}
	s.read[id] = v
	return v, nil
}

func readSecret(ctx context.Context, ref spec.Secret, dir string) (string, error) {
	switch ref.Source {
	case "env":
		v, ok := os.LookupEnv(ref.Ref)
		if !ok {
			return "", fmt.Errorf("the environment variable %s is not set", ref.Ref)
		}
		return v, nil
	case "file":
		path := ref.Ref
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		data, err := os.ReadFile(path)
		return strings.TrimRight(string(data), "\r\n"), err
	case "exec":
		return execSecret(ctx, ref.Argv, dir)
	}
	return "", fmt.Errorf("secrets from %s can't be read yet", ref.Source)
}

func execSecret(ctx context.Context, argv []string, dir string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run %s: %w: %s", argv[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimRight(string(out), "\r\n"), nil
}

// all returns every value read so far, for masking.
func (s *secrets) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, v := range s.read {
		out = append(out, v)
	}
	return out
}
