package cgroup

import (
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The parts of union bpf_attr (linux/bpf.h) that are used here. What follows
// them is zero.
type (
	bpfProgLoad struct {
		kind, count        uint32
		insns, license     uint64 // pointers
		logLevel, logSize  uint32
		logBuf             uint64
		kernVersion, flags uint32
	}
	bpfProgAttach struct {
		target, prog, kind, flags, replace uint32
	}
	bpfProgQuery struct {
		target, kind, query, attachFlags uint32
		ids                              uint64 // pointer
		count, _                         uint32
		_                                uint64 // prog_attach_flags
		_, _                             uint64
	}
	bpfGetByID struct{ id, next, flags uint32 }
)

// bpf is bpf(2). The verifier gives up when a signal comes (EAGAIN), and Go's
// runtime sends itself some.
func bpf(cmd uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	for tries := 0; ; tries++ {
		n, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
		switch {
		case errno == 0:
			return int(n), nil
		case (errno == unix.EAGAIN || errno == unix.EINTR) && tries < 30:
		default:
			return -1, os.NewSyscallError("bpf", errno)
		}
	}
}

// setDeviceProgram loads a device program and makes it the one of the group. A
// program that was there is replaced in one step; those of ancestors apply as
// well, and groups inside may add their own (BPF_F_ALLOW_MULTI).
func setDeviceProgram(group string, insns []bpfInsn) error {
	target, err := retry(func() (int, error) {
		return unix.Open(group, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return &os.PathError{Op: "open", Path: group, Err: err}
	}
	defer func() { _ = unix.Close(target) }() // read only
	license := [...]byte{'G', 'P', 'L', 0}
	load := bpfProgLoad{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(insns)),
		insns: uint64(uintptr(unsafe.Pointer(&insns[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	var pin runtime.Pinner // the kernel gets the addresses as numbers
	pin.Pin(&insns[0])
	pin.Pin(&license[0])
	defer pin.Unpin()
	prog, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(prog) }() // the group holds it once attached

	attach := bpfProgAttach{
		target: uint32(target), prog: uint32(prog), kind: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI,
	}
	old, err := deviceProgramOf(target)
	if err != nil {
		return err
	}
	if old >= 0 {
		defer func() { _ = unix.Close(old) }()
		attach.flags |= unix.BPF_F_REPLACE // Linux 5.6
		attach.replace = uint32(old)
	}
	_, err = bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attach), unsafe.Sizeof(attach))
	return err
}

// deviceProgramOf returns a descriptor of the device program that is attached to
// the group itself, -1 if there is none.
func deviceProgramOf(target int) (int, error) {
	var ids [64]uint32
	var pin runtime.Pinner
	pin.Pin(&ids[0])
	defer pin.Unpin()
	query := bpfProgQuery{
		target: uint32(target), kind: unix.BPF_CGROUP_DEVICE,
		ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(len(ids)),
	}
	if _, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&query), unsafe.Sizeof(query)); err != nil {
		return -1, err
	}
	if query.count == 0 {
		return -1, nil
	}
	get := bpfGetByID{id: ids[0]}
	fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&get), unsafe.Sizeof(get))
	if errors.Is(err, unix.ENOENT) {
		return -1, nil
	}
	return fd, err
}
