package adapter

import (
	"bytes"
	"io"
)

// ReadEvents takes the events of a call.
func ReadEvents(verb string, text []byte) error {
	e := &events{verb: verb, log: &log{out: io.Discard}, progress: func(int64, int64, string) {}, declared: map[string]string{"path": "string"}}
	return e.read(bytes.NewReader(text))
}
