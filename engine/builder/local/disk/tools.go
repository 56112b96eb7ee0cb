package disk

// Tool is something of the host that this package runs or reads.
type Tool struct {
	// Name is the command's name, or the absolute path of a file.
	Name string
	// Package is Debian's name of the package that has it.
	Package string
	// Why says what it is needed for, to be shown to people.
	Why string
}

// Tools lists what the host must have.
func Tools() []Tool {
	return []Tool{
		{"grub-mkimage", "grub-common", "makes the boot loader of a disk"},
		{grubModules + "/i386-pc/boot.img", "grub-pc-bin", "boots a disk with BIOS firmware"},
		{grubModules + "/x86_64-efi/modinfo.sh", "grub-efi-amd64-bin", "boots a disk with UEFI firmware"},
		{"qemu-img", "qemu-utils", "makes QCOW2 files"},
	}
}
