/* Stacks that frame pointers do not lead through: callbacks of the C library and of a library of its own, a signal
   handler, a recursion deeper than what is copied. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <pthread.h>

void each(int count, void (*visit)(int, void *), void *with);
static volatile int sink;

static int compare(const void *left, const void *right) {
    int a = *(const int *)left, b = *(const int *)right;
    return (a > b) - (a < b); // BP compare
}
__attribute__((noinline)) int sort_all(int *numbers, int count) {
    qsort(numbers, count, sizeof *numbers, compare);
    return numbers[0] + sink;
}
static inline int twice(int value) {
    sink += value;
    return 2 * value; // BP inlined
}
static void visit(int number, void *with) {
    *(int *)with += twice(number); // BP visit
}
__attribute__((noinline)) int walk(int count) {
    int sum = 0;
    each(count, visit, &sum);
    return sum + sink;
}
static void handler(int number) {
    sink += number; // BP handler
}
__attribute__((noinline)) int interrupted(void) {
    raise(SIGUSR1);
    return sink;
}
__attribute__((noinline)) int deep(int level) {
    volatile char room[1500];
    memset((void *)room, level, sizeof room);
    if (level == 0)
        return room[3]; // BP deep
    return deep(level - 1) + room[level];
}
static void *thread(void *argument) {
    *(int *)argument = walk(1);
    return argument;
}
int main(void) {
    char line[16];
    int numbers[2] = { 2, 1 }, result = 0;
    pthread_t other;
    signal(SIGUSR1, handler);
    printf("ready %d\n", getpid());
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 1;
    result += sort_all(numbers, 2);
    result += walk(1);
    result += interrupted();
    result += deep(20);
    pthread_create(&other, NULL, thread, &numbers[0]);
    pthread_join(other, NULL);
    printf("done %d\n", result);
    return 0;
}
