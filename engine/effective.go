package engine

import (
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
	of := x.failed[n.Image.Name]
	if of == nil {
		of = map[string]bool{}
		x.failed[n.Image.Name] = of
	}
	of[n.Key] = failed
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
	failed := x.failedIn(n.Image)
	if without(failed, below) == nil {
		return n
	}
	out, img := *n, *n.Image
	out.Key = salted(failed, n.Key, below)
	out.Layers = present(failed, n.Layers)
	img.DiskKey = salted(failed, img.DiskKey, img.Stack)
	if img.PublishKey != "" {
		img.PublishKey = salted(failed, img.PublishKey, img.Stack)
	}
	img.Stack = present(failed, img.Stack)
	out.Image = &img
	return &out
}

// failedIn returns the failed steps of an image and of those it is built from. Cells of a
// matrix share keys, and a step may fail for one and succeed for another.
func (x *execution) failedIn(img *plan.Image) map[string]bool {
	all := map[string]bool{}
	for ; img != nil; img = img.Parent {
		for key, failed := range x.failed[img.Name] {
			all[key] = all[key] || failed
		}
	}
	return all
}

// without lists the failed steps among the layers, in their order.
func without(failed map[string]bool, layers []string) []string {
	var missing []string
	for _, key := range layers {
		if failed[key] {
			missing = append(missing, key)
		}
	}
	return missing
}

func salted(failed map[string]bool, key string, below []string) string {
	missing := without(failed, below)
	if missing == nil {
		return key
	}
	return plan.Key(map[string]string{"key": key, "without": strings.Join(missing, " ")})
}

// present replaces a stack by the layers that are really there: without those that
// failed, and those above them under the keys they were made with.
func present(failed map[string]bool, stack []string) []string {
	var out []string
	for i, key := range stack {
		if !failed[key] {
			out = append(out, salted(failed, key, stack[:i]))
		}
	}
	return out
}
