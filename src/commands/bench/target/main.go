// The target of `riptrace bench probe`: it calls small functions as often as it is told and says how long that took.
//
// Commands on standard input, one a line, each answered with a line of JSON:
//
//	calls FUNCTION THREADS MS     calls a function for so long, on so many threads
//	burst FUNCTION THREADS CALLS  calls it so often on each of so many threads
//	paced FUNCTION THREADS MS STRIDE RATE
//	                              calls it for so long in strides, so many calls a second on each thread
//	floor CALLS                   passes an int3 whose handler is empty so often
//	threads N                     has so many threads from now on
//	collect MS                    allocates beside tight loops for so long, and counts the collections
//	exit                          ends, as the end of standard input does
//
// With `-uprobe FILE OFFSET` it is no target but a peer: a kernel uprobe is at that place of the file until standard
// input ends.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// answer is a line of output.
type answer struct {
	Type        string  `json:"type"` // ready, done or error
	Pid         int     `json:"pid,omitempty"`
	Calls       uint64  `json:"calls,omitempty"`
	Ns          int64   `json:"ns,omitempty"`        // of all threads together
	MedianNs    float64 `json:"median_ns,omitempty"` // of a call, over all strides
	Collections uint32  `json:"collections,omitempty"`
	Error       string  `json:"error,omitempty"`
}

func say(a answer) {
	_ = json.NewEncoder(os.Stdout).Encode(a)
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == "-uprobe" {
		offset, err := strconv.ParseUint(os.Args[3], 0, 64)
		if err == nil {
			err = uprobe(os.Args[2], offset)
		}
		if err != nil {
			say(answer{Type: "error", Error: err.Error()})
			os.Exit(1)
		}
		return
	}
	say(answer{Type: "ready", Pid: os.Getpid()})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 1 && words[0] == "exit" {
			return
		}
		a, err := command(words)
		a.Type = "done"
		if err != nil {
			a.Type, a.Error = "error", err.Error()
		}
		say(a)
	}
}

func command(words []string) (answer, error) {
	var numbers []int
	for _, word := range words {
		if n, err := strconv.Atoi(word); err == nil {
			numbers = append(numbers, n)
		}
	}
	switch {
	case len(words) == 4 && len(numbers) == 2 && functions[words[1]] != nil && words[0] == "calls":
		return calls(functions[words[1]], numbers[0], time.Duration(numbers[1])*time.Millisecond), nil
	case len(words) == 4 && len(numbers) == 2 && functions[words[1]] != nil && words[0] == "burst":
		return burst(functions[words[1]], numbers[0], numbers[1]), nil
	case len(words) == 6 && len(numbers) == 4 && functions[words[1]] != nil && words[0] == "paced":
		limit := time.Duration(numbers[1]) * time.Millisecond
		return paced(functions[words[1]], numbers[0], limit, numbers[2], numbers[3]), nil
	case len(words) == 2 && len(numbers) == 1 && words[0] == "floor":
		return floor(uint64(numbers[0]))
	case len(words) == 2 && len(numbers) == 1 && words[0] == "threads":
		threads(numbers[0])
		return answer{}, nil
	case len(words) == 2 && len(numbers) == 1 && words[0] == "collect":
		return collect(time.Duration(numbers[0]) * time.Millisecond), nil
	}
	return answer{}, fmt.Errorf("no command %q", strings.Join(words, " "))
}

// onThreads runs a function on threads of their own at once and returns the time of all together.
func onThreads(n int, run func()) time.Duration {
	var all sync.WaitGroup
	var spent atomic.Int64
	start := make(chan struct{})
	for i := 0; i < n; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			<-start
			from := time.Now()
			run()
			spent.Add(int64(time.Since(from)))
		}()
	}
	close(start)
	all.Wait()
	return time.Duration(spent.Load())
}

// Calls between two looks at the clock.
const stride = 500

func calls(function func(int) uint64, n int, limit time.Duration) answer {
	var made atomic.Uint64
	spent := onThreads(n, func() {
		own := uint64(0)
		for end := time.Now().Add(limit); time.Now().Before(end); {
			kept.Add(function(stride))
			own += stride
		}
		made.Add(own)
	})
	return answer{Calls: made.Load(), Ns: int64(spent)}
}

func burst(function func(int) uint64, n, each int) answer {
	spent := onThreads(n, func() { kept.Add(function(each)) })
	return answer{Calls: uint64(n * each), Ns: int64(spent)}
}

// paced leaves a reader of what the calls cause the time that it needs, and times the calls alone.
func paced(function func(int) uint64, n int, limit time.Duration, stride, rate int) answer {
	every := time.Duration(stride) * time.Second / time.Duration(rate)
	var lock sync.Mutex
	var strides []time.Duration
	onThreads(n, func() {
		own := make([]time.Duration, 0, limit/every+2)
		now := time.Now()
		for end := now.Add(limit); now.Before(end); {
			from := now
			kept.Add(function(stride))
			now = time.Now()
			own = append(own, now.Sub(from))
			for now.Sub(from) < every {
				now = time.Now()
			}
		}
		lock.Lock()
		strides = append(strides, own...)
		lock.Unlock()
	})
	a := answer{Calls: uint64(len(strides) * stride)}
	for _, one := range strides {
		a.Ns += int64(one)
	}
	sort.Slice(strides, func(i, j int) bool { return strides[i] < strides[j] })
	a.MedianNs = float64(strides[len(strides)/2]) / float64(stride)
	return a
}

// kept has a use of all results.
var kept atomic.Uint64

var parked int

// threads makes threads that wait in a system call.
func threads(n int) {
	for ; parked < n; parked++ {
		up := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			from, _, err := os.Pipe()
			close(up)
			if err == nil {
				_, _ = blockingRead(from)
			}
		}()
		<-up
	}
	// The last ones are on their way into their call.
	time.Sleep(50 * time.Millisecond)
}

// collect runs tight loops beside an allocation that never ends; the collector has to preempt the loops.
func collect(limit time.Duration) answer {
	debug.SetGCPercent(20)
	var stop atomic.Bool
	var all sync.WaitGroup
	var made atomic.Uint64
	for i := 0; i < runtime.GOMAXPROCS(0); i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			own := uint64(0)
			for !stop.Load() {
				kept.Add(tight(own, tightRounds))
				own += tightRounds
			}
			made.Add(own)
		}()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	from := time.Now()
	for time.Since(from) < limit {
		garbage := make([]*[512]byte, 128)
		for i := range garbage {
			garbage[i] = new([512]byte)
			garbage[i][i] = byte(i)
		}
		kept.Add(uint64(garbage[7][7]))
	}
	runtime.ReadMemStats(&after)
	spent := time.Since(from)
	stop.Store(true)
	all.Wait()
	return answer{Calls: made.Load(), Ns: int64(spent), Collections: after.NumGC - before.NumGC}
}
