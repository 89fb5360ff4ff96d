#include "textflag.h"

// func traps(n uint64)
TEXT ·traps(SB), NOSPLIT|NOFRAME, $0-8
	MOVQ n+0(FP), CX
loop:
	BYTE $0xCC // int3
	DECQ CX
	JNZ  loop
	RET

TEXT emptyHandler<>(SB), NOSPLIT|NOFRAME, $0-0
	RET

TEXT emptyRestorer<>(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ $15, AX // rt_sigreturn
	SYSCALL
	INT  $3

// func handler() uintptr
TEXT ·handler(SB), NOSPLIT, $0-8
	LEAQ emptyHandler<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func restorer() uintptr
TEXT ·restorer(SB), NOSPLIT, $0-8
	LEAQ emptyRestorer<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET
