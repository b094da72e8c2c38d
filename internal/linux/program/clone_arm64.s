#include "textflag.h"

// func rawClone(trap, a1, a2, a3 uintptr, im *image) (pid uintptr, errno syscall.Errno)
TEXT ·rawClone(SB),NOSPLIT,$0-56
	MOVD	trap+0(FP), R8
	MOVD	a1+8(FP), R0
	MOVD	a2+16(FP), R1
	MOVD	a3+24(FP), R2
	MOVD	im+32(FP), R9	// survives the system call, in both processes
	MOVD	$0, R3
	MOVD	$0, R4
	MOVD	$0, R5
	SVC
	CBZ	R0, child
	CMN	$4095, R0
	BCC	ok
	NEG	R0, R0
	MOVD	$-1, R1
	MOVD	R1, pid+40(FP)
	MOVD	R0, errno+48(FP)
	RET
ok:
	MOVD	R0, pid+40(FP)
	MOVD	$0, R1
	MOVD	R1, errno+48(FP)
	RET
child:
	// On the top of a stack of its own. g is the caller's; nothing looks into
	// it. The argument's place is above the link register's.
	SUB	$32, RSP
	MOVD	R9, 8(RSP)
	BL	·childMain(SB)
	BRK
