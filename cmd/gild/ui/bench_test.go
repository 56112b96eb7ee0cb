package ui

import (
	"fmt"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/event"
)

// BenchmarkFrame draws a graph of 10,000 nodes, which the live view does ten times a second.
func BenchmarkFrame(b *testing.B) {
	start := time.Date(2026, 12, 4, 12, 3, 0, 0, time.UTC)
	e := event.Event{Kind: event.RunStarted, Run: "r", Time: start}
	for i := range 1000 {
		for j := range 10 {
			e.Graph = append(e.Graph, event.Node{ID: fmt.Sprintf("image-%d/step-%d", i, j), Title: "a step"})
		}
	}
	var s Story
	s.Emit(e)
	for i, n := range e.Graph {
		state := event.Done
		if i > 5000 {
			state = event.Running
		}
		if i < 5020 {
			s.Emit(event.Event{Kind: event.NodeState, Node: n.ID, State: state, Time: start})
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		s.frame(start.Add(time.Minute), 80, 24, Look{Unicode: true, Color: true})
	}
}
