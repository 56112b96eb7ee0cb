package broker

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// Request tells a plugin to run the step called name on the target, which is open at the
// server under the token. Its call id is new.
func (s *Server) Request(name string, t *step.Target, config json.RawMessage, token string) *pluginv1.RunRequest {
	req := &pluginv1.RunRequest{
		CallId:           rand.Text(),
		Step:             name,
		Config:           config,
		Env:              t.Env,
		SecretEnv:        t.SecretEnv,
		Inputs:           slices.Sorted(maps.Keys(t.Inputs)),
		Clock:            timestamppb.New(t.Clock),
		Pipeline:         &pluginv1.Pipeline{Name: t.Pipeline.Name, Release: t.Pipeline.Release, Arch: t.Pipeline.Arch},
		HostAddress:      s.Address(),
		HostToken:        token,
		Attempt:          int32(t.Attempt),
		IdempotencyToken: t.Token,
	}
	if img := t.Image; img != nil {
		req.Image = &pluginv1.Image{Key: img.Key, Id: img.ID, Region: img.Region, Size: img.Size}
		for _, f := range img.Files {
			req.Image.Files = append(req.Image.Files, &pluginv1.ImageFile{
				Format: f.Format, Path: f.Path, Size: f.Size, Allocated: f.Allocated, Sha256: f.SHA256,
			})
		}
	}
	if t.Machine != nil {
		req.Machine = &pluginv1.MachineInfo{}
		if guest, ok := t.Machine.(step.Guest); ok {
			req.Machine.Guest, req.Machine.PoweredOn = true, timestamppb.New(guest.PoweredOn())
		}
	}
	return req
}
