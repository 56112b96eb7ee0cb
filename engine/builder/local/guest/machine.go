package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// machine is the part of QEMU's command line that depends on architecture, firmware
// and accelerator.
type machine struct {
	binary string
	args   []string
}

// platform is what is known of an architecture.
type platform struct {
	binary, pkg string
	// kind is QEMU's machine, tcgCPU the processor it emulates.
	kind, tcgCPU string
	firmwarePkg  string
	// firmware lists pairs of code and variables in the order of preference.
	firmware [][2]string
}

var platforms = map[string]platform{
	"amd64": {
		// Not "max": with it, on QEMU 7.2 and a busy host, systemd in the guest failed at random
		// with "invalid argument", and never did without AVX, which that version was the first
		// to emulate. Nehalem is the newest processor that lacks it. Of Intel's processors
		// Linux believes that they need Meltdown's remedy, which flushes the emulator's TLB at
		// each system call: AMD's name saves 28 % of the processor time of a boot (24 s for 33 s).
		binary: "qemu-system-x86_64", pkg: "qemu-system-x86", kind: "pc,graphics=off", tcgCPU: "Nehalem,vendor=AuthenticAMD",
		firmwarePkg: "ovmf",
		firmware: [][2]string{
			{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
			{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
			{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
			{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
		},
	},
	"arm64": {
		// The emulation of pointer authentication as specified takes most of the time of a boot.
		binary: "qemu-system-aarch64", pkg: "qemu-system-arm", kind: "virt", tcgCPU: "max,pauth-impdef=on",
		firmwarePkg: "qemu-efi-aarch64",
		firmware: [][2]string{
			{"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"},
			{"/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"},
		},
	},
}

// chooseMachine finds everything of the host that a guest needs, and copies the
// firmware's variables to c.Dir.
func chooseMachine(ctx context.Context, c Config) (machine, error) {
	p, ok := platforms[c.Arch]
	if !ok {
		return machine{}, fmt.Errorf("no machine for architecture %q: amd64 and arm64 are known", c.Arch)
	}
	binary, err := p.find(c.Arch)
	if err != nil {
		return machine{}, err
	}
	firmware, err := p.chooseFirmware(c)
	if err != nil {
		return machine{}, err
	}
	m := machine{binary: binary, args: append([]string{"-machine", p.kind}, firmware...)}
	if c.useKVM(ctx) {
		m.args = append(m.args, "-accel", "kvm", "-cpu", "host")
	} else {
		m.args = append(m.args, "-accel", "tcg,thread=multi,tb-size=256", "-cpu", p.tcgCPU)
	}
	return m, nil
}

// find looks for the emulator of an architecture.
func (p platform) find(arch string) (string, error) {
	binary, err := exec.LookPath(p.binary)
	if err != nil {
		return "", fmt.Errorf("no emulator for %s: %w: install %s", arch, err, p.pkg)
	}
	return binary, nil
}

func (c Config) useKVM(ctx context.Context) bool {
	if c.Accel == "" {
		return c.Arch == runtime.GOARCH && WorkingKVM(ctx, c.CacheDir)
	}
	return c.Accel == KVM
}

const varsName = "firmware-vars.fd"

func (p platform) chooseFirmware(c Config) ([]string, error) {
	switch {
	case c.Firmware != "bios" && c.Firmware != "uefi":
		return nil, fmt.Errorf("firmware %q: give bios or uefi", c.Firmware)
	case c.Firmware == "bios" && c.Arch != "amd64":
		return nil, fmt.Errorf("%s has no BIOS: use firmware uefi", c.Arch)
	case c.Firmware == "bios":
		return nil, nil
	}
	for _, pair := range p.firmware {
		if _, err := os.Stat(pair[0]); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		vars, err := os.ReadFile(pair[1])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the UEFI variables: %w", err)
		}
		if err := os.WriteFile(filepath.Join(c.Dir, varsName), vars, 0o600); err != nil {
			return nil, fmt.Errorf("copy the UEFI variables: %w", err)
		}
		return []string{
			"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + pair[0],
			"-drive", "if=pflash,format=raw,unit=1,file=" + varsName,
		}, nil
	}
	return nil, fmt.Errorf("no UEFI firmware for %s on this machine: install %s", c.Arch, p.firmwarePkg)
}
