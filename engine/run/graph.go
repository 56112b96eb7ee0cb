package run

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// node is a task with its place in the graph. Its lower fields are guarded by runner.mu.
type node struct {
	Task
	index      int
	dependents []*node

	// pending counts the needs that have not ended.
	pending int
	// blockedBy is the failed task that this one needs, directly or through others.
	blockedBy string
	ended     bool
	result    TaskResult
}

// newGraph checks the tasks and links them. Its errors are mistakes of the caller,
// not of a user: a plan is checked before it becomes tasks.
func newGraph(tasks []Task) ([]*node, error) {
	nodes := make([]*node, len(tasks))
	byID := make(map[string]*node, len(tasks))
	var errs []error
	for i, t := range tasks {
		n := &node{Task: t, index: i, pending: len(t.Needs)}
		nodes[i] = n
		switch {
		case t.ID == "":
			errs = append(errs, fmt.Errorf("task %d has no id", i))
		case byID[t.ID] != nil:
			errs = append(errs, fmt.Errorf("task %q is there twice", t.ID))
		}
		byID[t.ID] = n
	}
	for _, n := range nodes {
		for _, id := range n.Needs {
			need := byID[id]
			if need == nil {
				errs = append(errs, fmt.Errorf("task %q needs %q, which isn't there", n.ID, id))
				continue
			}
			need.dependents = append(need.dependents, n)
		}
	}
	if len(errs) == 0 {
		errs = append(errs, findCycle(nodes, byID))
	}
	return nodes, errors.Join(errs...)
}

// findCycle returns an error that shows a cycle as a path, or nil.
func findCycle(nodes []*node, byID map[string]*node) error {
	left := make([]int, len(nodes))
	var free []*node
	for i, n := range nodes {
		left[i] = n.pending
		if n.pending == 0 {
			free = append(free, n)
		}
	}
	reached := len(free)
	for len(free) > 0 {
		n := free[len(free)-1]
		free = free[:len(free)-1]
		for _, d := range n.dependents {
			if left[d.index]--; left[d.index] == 0 {
				free = append(free, d)
				reached++
			}
		}
	}
	if reached == len(nodes) {
		return nil
	}
	return cyclePath(nodes[slices.IndexFunc(left, func(n int) bool { return n > 0 })], left, byID)
}

// cyclePath walks from n to needs that are never reached until one comes again.
func cyclePath(n *node, left []int, byID map[string]*node) error {
	var path []string
	for !slices.Contains(path, n.ID) {
		path = append(path, n.ID)
		next := slices.IndexFunc(n.Needs, func(id string) bool { return left[byID[id].index] > 0 })
		n = byID[n.Needs[next]]
	}
	path = append(path[slices.Index(path, n.ID):], n.ID)
	return fmt.Errorf("tasks need each other: %s", strings.Join(path, " needs "))
}
