package main

// functions are what can be called and traced; each calls its traced function so often as it is told.
var functions = map[string]func(int) uint64{
	"words":  callWords,
	"text":   callText,
	"single": callSingle,
	"trap":   callTrap,
}

// Two words: a record of 64 bytes. The marked line is several short instructions.
//
//go:noinline
func words(a, b uint64) uint64 {
	sum := a ^ b // BP words
	return sum + a>>1
}

func callWords(n int) (x uint64) {
	for i := 0; i < n; i++ {
		x += words(x, uint64(i))
	}
	return x
}

// A string of 64 bytes and words beside it: a record of 256 bytes.
//
//go:noinline
func text(s string, a, b, c, d, e, f, g uint64) uint64 {
	sum := a ^ b ^ c // BP text
	return sum + d + e + f + g + uint64(len(s))
}

const sixtyFour = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func callText(n int) (x uint64) {
	for i := 0; i < n; i++ {
		x += text(sixtyFour, x, uint64(i), 3, 4, 5, 6, 7)
	}
	return x
}

// The marked line begins with one instruction of seven bytes.
//
//go:noinline
func single(a uint64) uint64 {
	product := a * 0x1234567 // BP single
	return product
}

func callSingle(n int) (x uint64) {
	for i := 0; i < n; i++ {
		x += single(x + uint64(i))
	}
	return x
}

// There is one instruction, of one byte: no room for a jump.
//
//go:noinline
func trap(a uint64) uint64 {
	return a // BP trap
}

func callTrap(n int) (x uint64) {
	for i := 0; i < n; i++ {
		x += trap(x + uint64(i))
	}
	return x
}

const tightRounds = 1 << 22

// A loop that only a signal preempts.
//
//go:noinline
func tight(x uint64, rounds int) uint64 {
	for i := 0; i < rounds; i++ {
		x = x*6364136223846793005 + 1442695040888963407 // BP tight
	}
	return x
}
