package engine

import (
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/plan"
)

// A customize step with continue-on-error that failed leaves no state. What comes after
// it is built without it, and must not be stored under the keys that mean "with it":
// another build, in which the step succeeds, would find it there. So after such a
// failure nodes work under other keys, made of their own and of what is missing.

// setFailed records how an attempt at a step that may fail ended.
func (x *execution) setFailed(n *plan.Node, failed bool) {
	x.failedMu.Lock()
	defer x.failedMu.Unlock()
	if failed {
		x.failed[n.Key] = true
	} else {
		delete(x.failed, n.Key)
	}
}

// effective returns the node as it is without the steps below it that failed: the node
// itself when there are none.
func (x *execution) effective(n *plan.Node) *plan.Node {
	x.failedMu.Lock()
	defer x.failedMu.Unlock()
	below := n.Layers
	if n.Layers == nil {
		below = n.Image.Stack // files, tests and all that follows stand on the whole image
	}
	if x.without(below) == nil {
		return n
	}
	out, img := *n, *n.Image
	out.Key = x.salted(n.Key, below)
	out.Layers = x.present(n.Layers)
	img.DiskKey = x.salted(img.DiskKey, img.Stack)
	if img.PublishKey != "" {
		img.PublishKey = x.salted(img.PublishKey, img.Stack)
	}
	img.Stack = x.present(img.Stack)
	out.Image = &img
	return &out
}

// without lists the failed steps among the layers, in their order.
func (x *execution) without(layers []string) []string {
	var missing []string
	for _, key := range layers {
		if x.failed[key] {
			missing = append(missing, key)
		}
	}
	return missing
}

func (x *execution) salted(key string, below []string) string {
	missing := x.without(below)
	if missing == nil {
		return key
	}
	return plan.Key(map[string]string{"key": key, "without": strings.Join(missing, " ")})
}

// present replaces a stack by the layers that are really there: without those that
// failed, and those above them under the keys they were made with.
func (x *execution) present(stack []string) []string {
	var out []string
	for i, key := range stack {
		if !x.failed[key] {
			out = append(out, x.salted(key, slices.Clone(stack[:i])))
		}
	}
	return out
}
