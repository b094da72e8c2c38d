# Sourced by run and template: one definition of the emulated machine, so that a
# template's state can be loaded into a new qemu. The caller sets IMAGE, KERNEL,
# MEM, RAM (file of the memory) and W (directory of pipes and console).
# shellcheck shell=bash
DATA_SIZE=8G # apparent size of the second disk; the same in the template and in every run
# The emulated clock counter is the host's; without its rate this machine type has
# nothing to calibrate against.
TSC_KHZ=$(awk '/^cpu MHz/{printf "%d", $4*1000; exit}' /proc/cpuinfo)

vm_pipes() { mkfifo "$W"/{ctl,qmp}.{in,out} "$W"/{out,err,tar}; }

vm_args() { # vm_args ROOT_DRIVE_OPTIONS share=on|off [extra qemu arguments]
	local drive=$1 share=$2
	shift 2
	# cx16=off: without it every 16 byte exchange stops the other processor.
	ARGS=(-M microvm,acpi=on,isa-serial=on,rtc=on,x-option-roms=off,memory-backend=ram
		-object "memory-backend-file,id=ram,size=$MEM,mem-path=$RAM,$share"
		-accel tcg,thread=multi,tb-size=512 -cpu max,cx16=off -smp 2 -m "$MEM"
		-nodefaults -no-user-config -nographic -no-reboot
		-kernel "$IMAGE/$KERNEL/vmlinuz" -initrd "$IMAGE/$KERNEL/initrd"
		-append "console=ttyS0 quiet tsc_early_khz=$TSC_KHZ mitigations=off panic=-1 systemd.show_status=0"
		-serial "file:$W/console"
		-drive "if=none,id=r,$drive,cache=unsafe" -device virtio-blk-device,drive=r
		-drive "if=none,id=d,file=$W/data.img,format=raw,cache=unsafe" -device virtio-blk-device,drive=d
		-device virtio-serial-device
		-chardev "pipe,id=ctl,path=$W/ctl" -device virtserialport,chardev=ctl,name=isle-vm.ctl
		-chardev "file,id=out,path=$W/out" -device virtserialport,chardev=out,name=isle-vm.out
		-chardev "file,id=err,path=$W/err" -device virtserialport,chardev=err,name=isle-vm.err
		-chardev "file,id=tar,path=$W/tar" -device virtserialport,chardev=tar,name=isle-vm.tar
		-chardev "pipe,id=qmp,path=$W/qmp" -mon chardev=qmp,mode=control "$@")
}

# qmp_open and qmp talk to qemu; qmp sends a command and prints the answer, and
# fails if that is an error or does not come.
qmp_open() {
	exec 6<>"$W/qmp.in" 7<>"$W/qmp.out"
	qmp '{"execute":"qmp_capabilities"}' >/dev/null
}

qmp() {
	local l
	echo "$1" >&6
	while read -r -t 60 -u 7 l; do
		case $l in
		'{"return"'*) echo "$l"; return 0 ;;
		'{"error"'*) echo "$l" >&2; return 1 ;;
		esac
	done
	return 1
}
