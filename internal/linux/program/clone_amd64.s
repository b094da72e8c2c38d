#include "textflag.h"

// func rawClone(trap, a1, a2, a3 uintptr, im *image) (pid uintptr, errno syscall.Errno)
TEXT ·rawClone(SB),NOSPLIT,$0-56
	MOVQ	trap+0(FP), AX
	MOVQ	a1+8(FP), DI
	MOVQ	a2+16(FP), SI
	MOVQ	a3+24(FP), DX
	MOVQ	im+32(FP), R12	// survives the system call, in both processes
	XORL	R10, R10
	XORL	R8, R8
	XORL	R9, R9
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	CMPQ	AX, $0xfffffffffffff001
	JLS	ok
	NEGQ	AX
	MOVQ	$-1, pid+40(FP)
	MOVQ	AX, errno+48(FP)
	RET
ok:
	MOVQ	AX, pid+40(FP)
	MOVQ	$0, errno+48(FP)
	RET
child:
	// On the top of a stack of its own. The thread pointer is the caller's, so the wrapper of childMain finds a g; nothing looks into it.
	SUBQ	$32, SP
	ANDQ	$~15, SP
	MOVQ	R12, 0(SP)
	CALL	·childMain(SB)
	INT	$3
