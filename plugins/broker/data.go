package broker

import (
	"io"

	"google.golang.org/grpc"

	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// chunkSize is how much data one message has at most.
const chunkSize = 256 << 10

// receiver reads the data of a stream's messages.
type receiver struct {
	next func() ([]byte, error)
	rest []byte
	err  error
}

// Read implements io.Reader.
func (r *receiver) Read(p []byte) (int, error) {
	for len(r.rest) == 0 && r.err == nil {
		r.rest, r.err = r.next()
	}
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// WriteTo implements io.WriterTo: it saves io.Copy its own, smaller buffer.
func (r *receiver) WriteTo(w io.Writer) (written int64, err error) {
	for {
		if len(r.rest) > 0 {
			n, err := w.Write(r.rest)
			written += int64(n)
			if err != nil {
				return written, err
			}
			r.rest = nil
		}
		if r.err == io.EOF {
			return written, nil
		}
		if r.err != nil {
			return written, r.err
		}
		r.rest, r.err = r.next()
	}
}

// sender sends what is written in messages of at most chunkSize. The message is encoded
// when send returns, so that the writer's buffer is free again.
type sender struct{ send func([]byte) error }

// Write implements io.Writer.
func (s *sender) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		piece := p[:min(len(p), chunkSize)]
		if err := s.send(piece); err != nil {
			return written, err
		}
		written += len(piece)
		p = p[len(piece):]
	}
	return written, nil
}

// ReadFrom implements io.ReaderFrom: it makes io.Copy send large messages.
func (s *sender) ReadFrom(r io.Reader) (read int64, err error) {
	buf := make([]byte, chunkSize)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			read += int64(n)
			if err := s.send(buf[:n]); err != nil {
				return read, err
			}
		}
		if err == io.EOF {
			return read, nil
		}
		if err != nil {
			return read, err
		}
	}
}

func chunks(stream grpc.ServerStreamingServer[pluginv1.Chunk]) *sender {
	return &sender{send: func(p []byte) error { return stream.Send(&pluginv1.Chunk{Data: p}) }}
}
