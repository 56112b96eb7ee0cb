package sandbox

import "golang.org/x/sys/unix"

const (
	nativeArch = unix.AUDIT_ARCH_AARCH64
	// foreignCalls is above every number; arm64 has only one interface.
	foreignCalls = 0x40000000
)
