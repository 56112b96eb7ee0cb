package broker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// What a plugin can make gild hold at once. A message is what a piece of data and its
// frame need; windows are what a connection buffers without being read.
const (
	maxMessage   = 2 << 20
	maxMetadata  = 64 << 10
	maxStreams   = 128
	streamWindow = 1 << 20
	connWindow   = 4 << 20
	maxCalls     = 64
	handshake    = 10 * time.Second

	maxConns           = 1024
	maxConnsPerProcess = 128
)

// busyWait is how long a call waits for the machine: long enough for a call that was
// cancelled to end, short enough to tell a plugin that waits for itself.
const busyWait = 20 * time.Second

// Server is gild's side of the broker. It is safe for concurrent use and must be closed.
type Server struct {
	socket *socket
	grpc   *grpc.Server
	served chan error
	// busyWait is the constant; tests have less patience.
	busyWait time.Duration

	mu       sync.Mutex
	closed   bool
	sessions map[*session]struct{}
}

// Listen makes a folder for the socket in dir, which is made if need be, and serves on it.
// Where the path would be too long for a socket, the folder is made in the host's folder
// for temporary files. Nothing but the folder's mode keeps other users out.
func Listen(dir string) (*Server, error) {
	sock, err := listen(dir)
	if err != nil {
		return nil, fmt.Errorf("listen for plugins: %w", err)
	}
	s := &Server{socket: sock, served: make(chan error, 1), busyWait: busyWait, sessions: map[*session]struct{}{}}
	s.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxMetadata),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.ConnectionTimeout(handshake),
		grpc.InTapHandle(s.admit),
		grpc.UnaryInterceptor(unary),
		grpc.StreamInterceptor(streaming),
	)
	pluginv1.RegisterMachineServer(s.grpc, machineServer{})
	pluginv1.RegisterHostServer(s.grpc, hostServer{})
	go func() { s.served <- s.grpc.Serve(newLimited(sock)) }()
	return s, nil
}

// Address is the path of the socket.
func (s *Server) Address() string { return s.socket.path }

// Open returns a token: calls that carry it work on t. end closes it: calls under way are
// cancelled, with errors that say that the step has ended, and end waits for what they do
// on t to stop. Calling end again does nothing. A token of a closed server works on nothing.
func (s *Server) Open(t *step.Target) (token string, end func()) {
	token = rand.Text() + rand.Text()
	ctx, cancel := context.WithCancelCause(context.Background())
	sess := &session{
		target: t, sum: sha256.Sum256([]byte(token)), ctx: ctx, cancel: cancel,
		machine: make(chan struct{}, 1), busyWait: s.busyWait, calls: make(chan struct{}, maxCalls),
		claims: map[string]*claim{}, inputs: map[string]*input{},
	}
	s.mu.Lock()
	if !s.closed {
		s.sessions[sess] = struct{}{}
	}
	s.mu.Unlock()
	return token, func() {
		s.mu.Lock()
		delete(s.sessions, sess)
		s.mu.Unlock()
		sess.end()
	}
}

// Close ends every token and connection and removes the socket.
func (s *Server) Close() error {
	s.mu.Lock()
	open := s.sessions
	s.sessions, s.closed = map[*session]struct{}{}, true
	s.mu.Unlock()
	for sess := range open {
		sess.end()
	}
	s.grpc.Stop()
	err := <-s.served
	if errors.Is(err, grpc.ErrServerStopped) {
		err = nil
	}
	s.served <- nil
	return errors.Join(err, s.socket.remove())
}

// find returns the session of a token. It looks at all of them, and at every byte, so that
// the time it takes tells nothing about a token.
func (s *Server) find(token string) *session {
	sum := sha256.Sum256([]byte(token))
	s.mu.Lock()
	defer s.mu.Unlock()
	var found *session
	for sess := range s.sessions {
		if subtle.ConstantTimeCompare(sess.sum[:], sum[:]) == 1 {
			found = sess
		}
	}
	return found
}

func randomID() string {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails: see its documentation
	return hex.EncodeToString(id[:])
}

func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the folder of the plugins' socket: %w", err)
	}
	return nil
}
