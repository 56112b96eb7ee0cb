package broker

import (
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// limited is a listener that bounds how many connections are open, in all and for each
// process. One beyond the bound is closed at once, so that a process that hoards them
// doesn't keep others out.
type limited struct {
	*net.UnixListener

	mu    sync.Mutex
	total int
	byPID map[int32]int
}

func newLimited(s *socket) *limited {
	return &limited{UnixListener: s.UnixListener, byPID: map[int32]int{}}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		pid, err := peer(conn)
		if err == nil && l.enter(pid) {
			return &counted{Conn: conn, leave: sync.OnceFunc(func() { l.leave(pid) })}, nil
		}
		conn.Close()
	}
}

func (l *limited) enter(pid int32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= maxConns || l.byPID[pid] >= maxConnsPerProcess {
		return false
	}
	l.total++
	l.byPID[pid]++
	return true
}

func (l *limited) leave(pid int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.byPID[pid]--; l.byPID[pid] == 0 {
		delete(l.byPID, pid)
	}
}

// peer returns the id of the process that connected.
func peer(conn *net.UnixConn) (int32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Pid, nil
}

// counted is a connection that is counted until it is closed.
type counted struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
