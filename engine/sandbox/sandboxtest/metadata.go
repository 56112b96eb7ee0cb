package sandboxtest

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// metadata serves the metadata of an instance in the network of its machine.
type metadata struct {
	server   *http.Server
	listener net.Listener
}

// metadataAddress is where AWS has it.
var metadataAddress = [4]byte{169, 254, 169, 254}

// listen serves in the network namespace of a process, and no longer in the one before.
func (m *metadata) listen(pid int) error {
	if m.listener != nil {
		// http.Server closes what it served on when that is closed under it.
		m.listener.Close()
	}
	listening := make(chan error, 1)
	go func() {
		// The thread is never used again: it stays in the other network.
		runtime.LockOSThread()
		listening <- m.listenHere(pid)
	}()
	if err := <-listening; err != nil {
		return err
	}
	l := m.listener
	go func() {
		// It ends with the listener.
		_ = m.server.Serve(l)
	}()
	return nil
}

func (m *metadata) listenHere(pid int) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter its network: %w", err)
	}
	if err := addAddresses(); err != nil {
		return fmt.Errorf("set up its network: %w", err)
	}
	m.listener, err = net.Listen("tcp4", net.JoinHostPort(net.IP(metadataAddress[:]).String(), "80"))
	return err
}

// addAddresses gives the loopback device of the thread's network the metadata address.
func addAddresses() error {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	up, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	up.SetUint16(unix.IFF_UP)
	alias, err := unix.NewIfreq("lo:imds")
	if err != nil {
		return err
	}
	return errors.Join(
		unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, up),
		alias.SetInet4Addr(metadataAddress[:]),
		unix.IoctlIfreq(sock, unix.SIOCSIFADDR, alias))
}
