package event

import (
	"encoding/json"
	"fmt"
	"io"
)

// JSONLSink writes events as JSON, one line each. It is made by [JSONL].
type JSONLSink struct {
	enc *json.Encoder
	err error
}

// JSONL returns a sink that writes each event to w with one call of Write. A stream that
// was cut short must not look whole: after the first error nothing more is written,
// and [JSONLSink.Err] returns it.
func JSONL(w io.Writer) *JSONLSink {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &JSONLSink{enc: enc}
}

// Emit writes e.
func (s *JSONLSink) Emit(e Event) {
	if s.err != nil {
		return
	}
	if err := s.enc.Encode(e); err != nil {
		s.err = fmt.Errorf("write event %d: %w", e.Seq, err)
	}
}

// Err returns the error that ended the writing, or nil. Call it after the run.
func (s *JSONLSink) Err() error { return s.err }

// Tee returns a sink that hands each event to every one of sinks, in order. Nil entries
// are left out.
func Tee(sinks ...Sink) Sink {
	var t tee
	for _, s := range sinks {
		if s != nil {
			t = append(t, s)
		}
	}
	return t
}

type tee []Sink

func (t tee) Emit(e Event) {
	for _, s := range t {
		s.Emit(e)
	}
}
