package steptest

import (
	"context"
	"errors"
	"fmt"

	"github.com/gildhq/gild/engine/step"
)

// Registry is a registry in memory, with the rules of a real one as far as steps can see
// them: builds count up, channels point, and only what is published can be copied.
type Registry struct {
	// Published are the requests, by id.
	Published map[string]step.PublishRequest
	Channels  map[string]string
	Copies    []string
	// Rules are the retention rules that were applied.
	Rules []step.RetainRule
	// Old is what Retain finds to retire.
	Old []step.Retired
	// Full is a region that takes no copies.
	Full string
}

// Publish implements step.Registry.
func (r *Registry) Publish(_ context.Context, req step.PublishRequest) (step.PublishResult, error) {
	if r.Published == nil {
		r.Published, r.Channels = map[string]step.PublishRequest{}, map[string]string{}
	}
	build := len(r.Published) + 1
	id := fmt.Sprintf("img-%d", build)
	r.Published[id] = req
	if req.Channel != "" {
		r.Channels[req.Channel] = id
	}
	return step.PublishResult{ID: id, Build: build}, nil
}

// Copy implements step.Registry.
func (r *Registry) Copy(_ context.Context, region string, progress func(done, total int64)) (step.CopyResult, error) {
	switch {
	case len(r.Published) == 0:
		return step.CopyResult{}, errors.New("the image isn't published")
	case region == r.Full:
		return step.CopyResult{}, fmt.Errorf("region %s is full", region)
	}
	progress(10, 10)
	r.Copies = append(r.Copies, region)
	return step.CopyResult{Region: region, Location: "/regions/" + region + "/img-1"}, nil
}

// Retain implements step.Registry.
func (r *Registry) Retain(_ context.Context, rule step.RetainRule) ([]step.Retired, error) {
	r.Rules = append(r.Rules, rule)
	gone := r.Old
	r.Old = nil
	return gone, nil
}
