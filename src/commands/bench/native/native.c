// The native target of `riptrace bench probe`: as the Go one, it calls small functions as often as it is told and says
// how long that took. Commands on standard input, one a line, each answered with a line of JSON:
//
//	burst FUNCTION THREADS CALLS  calls it so often on each of so many threads
//	paced FUNCTION THREADS MS STRIDE RATE
//	                              calls it for so long in strides, so many calls a second on each thread
//	exit                          ends, as the end of standard input does
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// Threads of a command, at most.
#define THREADS_MAX 16
// Strides of a thread that are timed, at most: more than there can be in a second.
#define STRIDES_MAX 100000

// Two words: a record of 64 bytes.
__attribute__((noinline)) uint64_t words(uint64_t a, uint64_t b) {
	uint64_t sum = a ^ b; // BP words
	return sum + (a >> 1);
}

// A string of 64 bytes and words beside it, two of them on the stack: a record of some 256 bytes.
__attribute__((noinline)) uint64_t text(const char *s, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                                        uint64_t f, uint64_t g) {
	uint64_t sum = a ^ b ^ c; // BP text
	return sum + d + e + f + g + (uint64_t)s[0];
}

static uint64_t call_words(uint64_t n) {
	uint64_t x = 0;
	for (uint64_t i = 0; i < n; i++) x += words(x, i);
	return x;
}

static const char sixty_four[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

static uint64_t call_text(uint64_t n) {
	uint64_t x = 0;
	for (uint64_t i = 0; i < n; i++) x += text(sixty_four, x, i, 3, 4, 5, 6, 7);
	return x;
}

static uint64_t now_ns(void) {
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

struct job {
	pthread_t thread;
	pthread_barrier_t *begin;
	uint64_t (*function)(uint64_t);
	uint64_t calls, limit_ns, every_ns;
	// Of each stride.
	uint64_t *ns;
	size_t strides;
};

// Has a use of all results.
static _Atomic uint64_t kept;

static void *run(void *argument) {
	struct job *job = argument;
	pthread_barrier_wait(job->begin);
	uint64_t now = now_ns(), end = now + job->limit_ns;
	do {
		uint64_t from = now;
		kept += job->function(job->calls);
		now = now_ns();
		job->ns[job->strides++] = now - from;
		while (now - from < job->every_ns) now = now_ns();
	} while (now < end && job->strides < STRIDES_MAX);
	return 0;
}

static int by_time(const void *a, const void *b) {
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

// Calls in strides on so many threads, and says what all of them took; a burst is one stride.
static void strides(uint64_t (*function)(uint64_t), size_t n, uint64_t calls, uint64_t limit_ns, uint64_t every_ns) {
	static struct job jobs[THREADS_MAX];
	static uint64_t all[THREADS_MAX * STRIDES_MAX];
	pthread_barrier_t begin;
	pthread_barrier_init(&begin, 0, (unsigned)n);
	for (size_t i = 0; i < n; i++) {
		jobs[i] = (struct job){.begin = &begin, .function = function, .calls = calls, .limit_ns = limit_ns,
		                       .every_ns = every_ns, .ns = all + i * STRIDES_MAX};
		if (pthread_create(&jobs[i].thread, 0, run, &jobs[i])) abort();
	}
	size_t count = 0;
	for (size_t i = 0; i < n; i++) {
		pthread_join(jobs[i].thread, 0);
		memmove(all + count, jobs[i].ns, jobs[i].strides * sizeof *all);
		count += jobs[i].strides;
	}
	pthread_barrier_destroy(&begin);
	uint64_t ns = 0;
	for (size_t i = 0; i < count; i++) ns += all[i];
	qsort(all, count, sizeof *all, by_time);
	printf("{\"type\":\"done\",\"calls\":%llu,\"ns\":%llu,\"median_ns\":%.3f}\n", (unsigned long long)(count * calls),
	       (unsigned long long)ns, (double)all[count / 2] / (double)calls);
}

int main(void) {
	setvbuf(stdout, 0, _IOLBF, 0);
	puts("{\"type\":\"ready\"}");
	char line[256];
	while (fgets(line, sizeof line, stdin)) {
		char command[16], name[16];
		unsigned long long n = 0, a = 0, b = 0, c = 0;
		int read = sscanf(line, "%15s %15s %llu %llu %llu %llu", command, name, &n, &a, &b, &c);
		if (read == 1 && !strcmp(command, "exit")) return 0;
		uint64_t (*function)(uint64_t) = !strcmp(name, "words") ? call_words : !strcmp(name, "text") ? call_text : 0;
		int is_sound = read >= 4 && function && n >= 1 && n <= THREADS_MAX && a > 0;
		if (is_sound && read == 4 && !strcmp(command, "burst"))
			strides(function, n, a, 0, 0);
		else if (is_sound && read == 6 && b > 0 && c > 0 && !strcmp(command, "paced"))
			strides(function, n, b, a * 1000000, b * 1000000000 / c);
		else
			puts("{\"type\":\"error\",\"error\":\"no such command\"}");
	}
	return 0;
}
